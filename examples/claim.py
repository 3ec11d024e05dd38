"""One claim of a paper with what came out here."""

from __future__ import annotations

from dataclasses import dataclass

from tables import link

__all__ = ["Claim"]


@dataclass(frozen=True)
class Claim:
    """What a paper claims or asks, and what came out here."""

    study: str
    """Its folder."""
    text: str
    verdict: str
    numbers: str = ""
    source: str = ""
    """The file with the numbers, in the folder; empty if there is none."""
    recipe: str = ""
    """The file that makes the numbers, in the folder; with a ``/``, in another one."""
    holds: bool = True
    """Whether the numbers allow the verdict."""

    def row(self) -> list[str]:
        """Return the claim as a row of the table.

        Raises:
            ValueError: the numbers no longer allow the verdict.
        """
        if not self.holds:
            raise ValueError(f"{self.study}: {self.text!r} is no longer {self.verdict!r}: {self.numbers}")
        source = link(self.source, f"{self.study}/{self.source}") if self.source else ""
        recipe = self.recipe if "/" in self.recipe else f"{self.study}/{self.recipe}"
        return [
            link(self.study, f"{self.study}/README.md"),
            self.text,
            f"**{self.verdict}**",
            self.numbers,
            source,
            f"`{recipe}`" if self.recipe else "",
        ]
