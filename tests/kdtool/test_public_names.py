"""The public names of kdtool and of its public packages."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import kdtool

SUB_PACKAGES = (
    "data",
    "distillation",
    "exporting",
    "features",
    "models",
    "plotting",
    "plugins",
    "pruning",
    "surgery",
    "testing",
    "training",
    "utils",
)


def test_the_public_names_are_there_and_none_is_a_module() -> None:
    # `kdtool.utils.progress` would be the function or the module, whichever came last.
    odd = {name for name in kdtool.__all__ if isinstance(getattr(kdtool, name, None), ModuleType | None)}

    assert odd == set(SUB_PACKAGES)


@pytest.mark.parametrize("package", SUB_PACKAGES)
def test_the_names_of_every_public_package_are_there(package: str) -> None:
    module = importlib.import_module(f"kdtool.{package}")

    assert module.__all__
    assert all(getattr(module, name, None) is not None for name in module.__all__)


def test_no_package_bears_the_name_of_a_public_function() -> None:
    functions = {name for name in kdtool.__all__ if inspect.isroutine(getattr(kdtool, name))}
    root = Path(kdtool.__file__).parent

    assert {"distill", "export", "report"} <= functions
    assert not functions & {path.stem for path in root.iterdir()}
