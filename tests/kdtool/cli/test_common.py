"""Words that stand where a network is wanted."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from kdtool.cli.common import as_network, latency_options, output_options
from kdtool.compression.options import BudgetOptions
from kdtool.exporting.providers import PROVIDERS
from kdtool.models.names import known


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDTOOL_CACHE", str(tmp_path))


def test_a_source_without_a_library_needs_no_list_in_the_cache() -> None:
    assert "resnet20" in (known("kdtool") or [])
    assert known("timm") is None
    assert as_network("resnet20") == "write kdtool:resnet20"


def test_no_name_is_suggested_that_is_only_near_while_a_list_is_missing() -> None:
    assert as_network("resnet18").startswith("a network is written as ")
    assert "did you mean" not in as_network("resnet18")


def test_the_nearest_names_of_all_sources_are_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = {"kdtool": ["resnet20", "resnet9"], "timm": ["resnet18"], "torchvision": ["resnet18"]}
    monkeypatch.setattr("kdtool.models.names.known", lists.get)
    monkeypatch.setattr("kdtool.models.names.names", lambda _: list(lists))
    monkeypatch.setattr("kdtool.cli.common.names", lambda _: list(lists))

    hint = "; did you mean kdtool:resnet20 or timm:resnet18 or torchvision:resnet18?"
    assert as_network("resnet19").endswith(hint)


def test_help_promises_no_run_and_no_forecast_where_nothing_is_trained() -> None:
    texts = {trains: " ".join(option.help or "" for option in _options(trains)) for trains in (True, False)}
    assert "and runs" in texts[True]
    assert "in how much time" in texts[True]
    assert "runs" not in texts[False]
    assert "in how much time" not in texts[False]


def _options(trains: bool) -> list[click.Option]:
    return [option for option in output_options("x.pt", trains=trains) if isinstance(option, click.Option)]


def test_a_provider_is_one_of_those_that_can_be_asked_for() -> None:
    provider = latency_options()[0]
    assert isinstance(provider.type, click.Choice)
    assert tuple(provider.type.choices) == tuple(PROVIDERS)
    assert BudgetOptions.info("provider").choices == tuple(PROVIDERS)
