"""A directory of the import path, in which tests install plugins."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdtool.plugins import entry_points, registry


class Site:
    """A directory on the import path, in which a test installs plugins."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that imports from this directory."""
        return {**os.environ, "PYTHONPATH": str(self.path)}

    def install(
        self,
        name: str,
        code: str | None,
        *,
        kind: str = "distillers",
        distribution: str = "",
        version: str = "1.0",
        names_class: bool = True,
    ) -> str:
        """Install a plugin with one module and one entry point, as an installer does, and return the module's name.

        The entry point names the class ``FirstBorn`` for ``first-born``, unless ``names_class`` is False.
        """
        group = f"kdtool.{kind}" if kind else "kdtool"
        distribution = distribution or f"kdtool-{name}"
        module = f"{distribution}_{name}_{version}".replace("-", "_").replace(".", "_")
        about = self.path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        value = f"{module}:{title(name)}" if kind and names_class else module
        (about / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
        if code is not None:
            (self.path / f"{module}.py").write_text(code)
        return module


def title(name: str) -> str:
    return name.title().replace("-", "")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    caches = (
        entry_points.installed,
        entry_points.register,
        entry_points.manager,
        registry._combined,
        registry._from_hook,
    )
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    for cache in caches:
        cache.cache_clear()
    yield Site(tmp_path)
    for cache in caches:
        cache.cache_clear()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
