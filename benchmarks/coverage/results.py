"""The results of each network: a JSON file that is written after every cell, so that a survey can be resumed."""

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
        """The directory of the checkpoints until the network is finished."""
        return self.path.with_suffix("")

    def keep(self, cell: str, outcome: dict[str, Any]) -> None:
        """Store the outcome of a cell and write the file."""
        if "reason" in outcome:
            reason = " ".join(str(outcome["reason"]).split())
            outcome = {**outcome, "reason": reason.removeprefix(f"{self.entry.spec}: ")[:500]}
        self.cells[cell] = outcome
        write_text(self.path, json.dumps(self.as_data(), indent=1) + "\n")

    def as_data(self) -> dict[str, Any]:
        """Return plain data."""
        entry = {"network": self.entry.spec, "image_size": self.entry.side, "group": self.entry.group}
        return {**entry, **self.about, "cells": self.cells}

    def status(self, cell: str) -> str:
        """Return ``ok``, ``refused``, ``failed``, ``none`` (nothing to edit), or an empty string if not tried."""
        if cell in EDITS and self.cells.get("build", {"status": "ok"})["status"] != "ok":
            return "failed"
        return str(self.cells.get(cell, {"status": ""})["status"])

    def lacking_edits(self) -> list[str]:
        """Return the edits to make: those that were not tried, and those whose results are needed but missing."""
        return [
            edit
            for edit in EDITS
            if not self.status(edit) or (self.lacking_uses(edit) and not (self.folder / f"{edit}.out").exists())
        ]

    def lacking_uses(self, edit: str) -> list[str]:
        """Return the cells of the uses of an edit's result that were not tried."""
        return [cell for cell in use_cells(edit) if not self.status(cell)] if self.status(edit) == "ok" else []

    def next_task(self) -> tuple[str, list[str]] | None:
        """Return the function of `trying` to call next and its cells, or None if everything is done."""
        if edits := self.lacking_edits():
            return "make_edits", edits
        if uses := [cell for edit in USED for cell in self.lacking_uses(edit)]:
            return "use_edits", uses
        return None

    def clear(self) -> None:
        """Remove the files that only an unfinished network needs."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def forget(self) -> None:
        """Remove all outcomes and files."""
        self.clear()
        self.path.unlink(missing_ok=True)
        self.cells = {}


def open_result(entry: Entry, work: Path, about: dict[str, Any]) -> Result:
    """Return the stored result of a network; outcomes with other versions or images are left out."""
    result = Result(entry, work / f"{slug(entry.spec)}.json", about)
    try:
        stored = json.loads(result.path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return result
    if (stored["image_size"], stored["versions"]) != (entry.side, about["versions"]):
        return result
    return Result(entry, result.path, {name: stored[name] for name in about}, stored["cells"])


def about_here() -> dict[str, Any]:
    """Return the versions on which results depend, and a fingerprint of the sources of kdtool."""
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
