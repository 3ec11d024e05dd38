"""Every message that docs/troubleshooting.md explains is a message of the code; ``...`` there stands for any text."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHORTEST = 8
"""Shorter pieces between two ``...`` are not looked for."""


@pytest.fixture(scope="module")
def code() -> str:
    """Return all string literals of the code, one a line; what an f-string fills in becomes a NUL."""
    found = []
    for path in (*ROOT.glob("kdtool/**/*.py"), *ROOT.glob("plugins/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def explained() -> list[str]:
    """Return the messages of the page: those in backticks at the beginning of a line."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    return [text for line in page.splitlines() if line.startswith("`") for text in re.findall(r"`([^`]+)`", line)]


@pytest.mark.parametrize("message", explained())
def test_an_explained_message_is_one_of_the_code(message: str, code: str) -> None:
    pieces = [piece.strip(" ()'?,;") for piece in message.split("...")]

    assert not [piece for piece in pieces if len(piece) >= SHORTEST and piece not in code]
