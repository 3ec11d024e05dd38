"""Print pip constraints that hold every dependency at its lower bound in pyproject.toml.

``make test-lowest`` installs with them: a lower bound that nothing tests is soon wrong.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?>=(?P<lowest>[0-9][0-9.]*)(,<[0-9.]+)?")


def constraints(requirements: list[str]) -> list[str]:
    """Return ``NAME==VERSION`` for each of ``NAME>=VERSION``, sorted by name.

    Raises:
        ValueError: a requirement has no lower bound.
    """
    lines = []
    for requirement in requirements:
        match = REQUIREMENT.fullmatch(requirement)
        if match is None:
            raise ValueError(f"{requirement!r} has no lower bound; write NAME>=VERSION")
        lines.append(f"{match['name']}=={match['lowest']}")
    return sorted(lines)


def main() -> None:
    """Print the constraints of the package and of its test extra."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    print("# Made from pyproject.toml by tests/constraints/lowest.py.")
    print("\n".join(constraints(project["dependencies"] + project["optional-dependencies"]["test"])))


if __name__ == "__main__":
    main()
