"""What was found of each network: a JSON file, written after every cell, from which a killed survey goes on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.coverage.networks import EDITS, LIST, USED, Entry, use_cells
from kdtool.utils.files import slug, write_text

ROOT = LIST.parents[2]
_PACKAGES = ("torch", "torchvision", "timm", "torch-pruning", "onnx", "onnxruntime", "kdtool")


@dataclass
class Result:
    """One network's cells by name: ``build``, EDIT and EDIT.USE, each with its ``status`` and ``seconds``."""

    entry: Entry
    path: Path
    about: dict[str, Any]
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where checkpoints lie until the network is finished."""
        return self.path.with_suffix("")

    def keep(self, cell: str, found: dict[str, Any]) -> None:
        """Remember what was found of a cell."""
        if "reason" in found:
            reason = " ".join(str(found["reason"]).split())
            found = {**found, "reason": reason.removeprefix(f"{self.entry.spec}: ")[:500]}
        self.cells[cell] = found
        write_text(self.path, json.dumps(self.as_data(), indent=1) + "\n")

    def as_data(self) -> dict[str, Any]:
        """Return plain data."""
        place = {"network": self.entry.spec, "image_size": self.entry.side, "group": self.entry.group}
        return {**place, **self.about, "cells": self.cells}

    def status(self, cell: str) -> str:
        """Return ``ok``, ``refused``, ``failed``, ``none`` (nothing to edit), or nothing where it was not tried."""
        if cell in EDITS and self.cells.get("build", {"status": "ok"})["status"] != "ok":
            return "failed"
        return str(self.cells.get(cell, {"status": ""})["status"])

    def lacking_edits(self) -> list[str]:
        """Return the edits to make: those that were not tried, and those whose results are needed but gone."""
        return [
            edit
            for edit in EDITS
            if not self.status(edit) or (self.lacking_uses(edit) and not (self.folder / f"{edit}.out").exists())
        ]

    def lacking_uses(self, edit: str) -> list[str]:
        """Return the cells of what is still to be done with the result of an edit."""
        return [cell for cell in use_cells(edit) if not self.status(cell)] if self.status(edit) == "ok" else []

    def next_task(self) -> tuple[str, list[str]] | None:
        """Return the function of `trying` to call next and its cells, or None when all is done."""
        if edits := self.lacking_edits():
            return "make_edits", edits
        if uses := [cell for edit in USED for cell in self.lacking_uses(edit)]:
            return "use_edits", uses
        return None

    def clear(self) -> None:
        """Remove what only an unfinished network needs."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def reinitialize(self) -> None:
        """Forget everything."""
        self.clear()
        self.path.unlink(missing_ok=True)
        self.cells = {}


def open_result(entry: Entry, work: Path, about: dict[str, Any]) -> Result:
    """Return what is known of a network; what was found with other versions or other images is forgotten."""
    result = Result(entry, work / f"{slug(entry.spec)}.json", about)
    try:
        found = json.loads(result.path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return result
    if (found["image_size"], found["versions"]) != (entry.side, about["versions"]):
        return result
    return Result(entry, result.path, {name: found[name] for name in about}, found["cells"])


def about_here() -> dict[str, Any]:
    """Return the versions that results depend on, and a fingerprint of kdtool's sources."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "kdtool").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    versions = {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}
    return {"versions": versions, "sources": digest.hexdigest()[:12]}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
