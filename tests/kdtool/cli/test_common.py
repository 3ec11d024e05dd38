"""Words that stand where a network is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdtool.cli.common import as_network
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
