"""Every benchmark finds what it imports from kdtool and from the other benchmarks: nothing else runs them in a test."""

import ast
import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FILES = sorted(BENCHMARKS.rglob("*.py"))


def imported(file):
    """Yield the modules and the names in them that a file imports by `from ... import`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and not node.level:
            for name in node.names:
                yield node.module, name.name


def defined(file):
    """Return the names that a file defines at its top level."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.Import | ast.ImportFrom):
            names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            names |= {alias.asname or alias.name for alias in getattr(node, "names", [])}
    return names


def exists(module, name, beside):
    if module.partition(".")[0] in ("kdtool", "kdtool_distillers", "kdtool_pruners", "kdtool_refiners"):
        found = importlib.import_module(module)
        return hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}") is not None
    for folder in (beside, BENCHMARKS, BENCHMARKS.parent):
        own = folder.joinpath(*module.split("."))
        if own.with_suffix(".py").is_file():
            return name in defined(own.with_suffix(".py"))
        if own.is_dir():
            return own.joinpath(f"{name}.py").is_file() or own.joinpath(name).is_dir()
    return True  # of another library


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(BENCHMARKS).as_posix())
def test_what_a_benchmark_imports_exists(file):
    missing = [f"{module}.{name}" for module, name in imported(file) if not exists(module, name, file.parent)]
    assert not missing
