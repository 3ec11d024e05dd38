"""What follows from the tables of the frontier: text with numbers of the results, which ``fact`` holds to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tables import Study, fact, say

__all__ = ["from_best", "from_frontier"]


def from_frontier(study: Study) -> None:
    """Print what the files of the frontier show."""
    of = {row["step"].removesuffix("-onnx"): row for row in study.rows if row.get("latency_ratio")}
    teacher = of["teacher"]

    def between(steps: Iterable[str]) -> str:
        ratios = sorted(of[step]["latency_ratio"] for step in steps)
        return f"{ratios[0]:.2f} to {ratios[-1]:.2f}"

    def smaller(step: str, key: str = "gzip_bytes") -> str:
        return f"{teacher[key] / of[step][key]:.1f}x"

    def keeps(row: dict[str, Any]) -> bool:
        return bool(row["accuracy"] >= teacher["accuracy"])

    tenth = [row for row in of.values() if 0.09 < row["macs"] / teacher["macs"] <= 0.101]
    scaled = [step for step in of if step.startswith(("inherit-", "narrow-")) and step != "narrow-deep"]
    selected = ("filter-l1", "isomorphic", "group-taylor", "gated")
    alone = of["narrow-labels"]
    taught = [row for row in tenth if row is not alone]
    kept = fact("Everything at a tenth of the MACs that has a teacher keeps the accuracy", all(map(keeps, taught)))
    full = fact(
        "`zeros` and `cluster` are as slow and as large as the teacher",
        min(of[step]["latency_ratio"] for step in ("zeros", "cluster")) > 0.95,
    )
    eighth, assistant = of["teacher-int8"], of["assistant"]
    lossless = fact("without loss", keeps(eighth))
    say(
        f"- **{kept}**, by its outputs or its weights; labels alone, from fresh weights, have "
        f"{100 * alone['accuracy']:.1f} %. The digits are too easy to tell the other ways apart; `best.toml` repeats "
        "five of the best at a fiftieth with three seeds (below).",
        f"- **Equal MACs are not equal latency.** All widths scaled down need {between(scaled)} of the teacher's time; "
        f"what gates and scores of channels leave, with as many MACs, {between(selected)} (why was not looked into). "
        "To meet a latency, give it (`gated --target-latency`, and `--of latency` of pruners), not MACs.",
        f"- **Zeros and shared values cost the full time.** {full}; only compressed (gzip) they are {smaller('zeros')} "
        f"and {smaller('cluster')} smaller.",
        f"- **8 bits** (`teacher-int8`) take {smaller('teacher-int8', 'file_bytes')} fewer bytes and "
        f"{eighth['latency_ratio']:.2f} of the time, {lossless}, and go with every other way.",
        f"- `assistant` makes two such steps, so it has {assistant['macs'] / teacher['macs']:.2f} of the MACs, and "
        f"{100 * assistant['accuracy']:.1f} %; `ikd` halves twice.",
    )


def from_best(study: Study) -> None:
    """Print what a fiftieth of the multiply-accumulates shows."""
    teacher, deep, gated = (study.mean(step) for step in ("teacher", "narrow-deep", "gated"))
    widths = [study.mean(step) for step in ("inherit-labels", "inherit-kd", "inherit-dkd")]
    shapes = fact(
        "**The structure matters more than the loss.** Widths and depths scaled together (`narrow-deep`), and what "
        "gates leave, are better than all widths scaled down, with every seed and every loss",
        all(
            study.wins(better, worse) == 3
            for better in ("narrow-deep", "gated")
            for worse in ("inherit-labels", "inherit-kd", "inherit-dkd")
        ),
    )
    gain = 100 * (min(deep["accuracy"], gated["accuracy"]) - max(row["accuracy"] for row in widths))
    below = 100 * (1 - widths[0]["macs"] / (0.02 * teacher["macs"]))
    losses = fact(
        "Between the losses the difference is within the noise.",
        max(row["accuracy_low"] for row in widths) < min(row["accuracy_high"] for row in widths),
    )
    fastest = fact(
        "`narrow-deep` has the lowest latency of all too.",
        min(study.means, key=lambda row: row.get("latency_ratio") or 9)["step"] == "narrow-deep-onnx",
    )
    say(
        f"- {shapes}: by {gain:.1f} points at least. Part of it may be that one step of all widths is coarse: those "
        f"students have {below:.0f} % fewer MACs than the budget allows.",
        f"- {losses} {fastest}",
    )
