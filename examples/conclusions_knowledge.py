"""What follows from the tables of the kinds of knowledge: text with numbers, which ``fact`` holds to the results."""

from __future__ import annotations

from tables import Study, count, fact, fmean, paired, say, show

__all__ = ["from_equal_time", "from_knowledge", "from_tenth", "gains"]

TENTH = {
    "teacher": ("the teacher", "", 16),
    "alone": ("all widths scaled down", "labels, fresh weights", 15),
    "inherit-kd": ("all widths scaled down", "`kd`, inherited weights", 15),
    "pruned-alone": ("channels removed by `isomorphic`", "labels, fresh weights", 15),
    "pruned-kd": ("channels removed by `isomorphic`", "`kd`, inherited weights", 15),
}
"""How the student of a step is made, how it is trained, and for how many epochs."""


Gains = dict[str, float]
"""The mean difference to ``none``, of equal seeds, in points of test accuracy, by the name of the loss."""


def gains(study: Study) -> tuple[Gains, Gains, Gains]:
    """Return the losses that are above ``none``, not to be told from it, and below it, by 95 % intervals."""
    alone = study.seeds("student", method="none")
    above, near, below = Gains(), Gains(), Gains()
    for method in dict.fromkeys(row["values"].get("method") for row in study.rows if row["step"] == "student"):
        if method == "none":
            continue
        gain, low, high = paired(study.seeds("student", method=method), alone)
        (above if low > 0 else below if high < 0 else near)[method] = gain
    return above, near, below


def from_knowledge(study: Study) -> None:
    """Print what the kinds of knowledge bring on the digits: differences of equal seeds, with their intervals."""
    above, near, below = gains(study)

    def listed(of: Gains) -> str:
        return ", ".join(f"`{name}` ({gain:+.1f})" for name, gain in sorted(of.items(), key=lambda item: -item[1]))

    features = fact("**Only features help here**", set(above) == {"fitnets", "reviewkd"})
    weight = fact("with the weight for maps of 2x2 pixels it is not", "at" in below and "at:62.5" not in below)
    say(
        f"- {features}: above `none`, in points of accuracy and by more than the 95 % interval of differences of equal "
        f"seeds, are {listed(above)}. The digits are easy: `none` has {study.percent('student', method='none')}.",
        f"- Not to be told from `none`: {listed(near)}.",
        f"- Below it: {listed(below)}. `at` has its authors' weight for maps of 8x8 pixels; {weight}.",
    )


def from_tenth(study: Study) -> None:
    """Print the students, and what they owe to their teacher."""
    show(
        ["step", "structure", "training", "epochs", "test accuracy in %", "MACs", "parameters"],
        [
            [
                *(f"`{step}`", structure, training, epochs, study.percent(step)),
                *(f"{study.mean(step)['macs'] / 1e6:.1f} M", count(study.mean(step)["parameters"])),
            ]
            for step, (structure, training, epochs) in TENTH.items()
        ],
        left=3,
    )
    points = {step: 100 * study.mean(step)["accuracy"] for step in TENTH}
    whole = points["pruned-kd"] - points["pruned-alone"]
    scaled = points["inherit-kd"] - points["alone"]
    found = points["pruned-alone"] - points["alone"]
    more = study.mean("pruned-alone")["macs"] / study.mean("alone")["macs"] - 1
    say(
        f"- With its teacher, and its teacher's weights, the pruned student is {whole:.1f} points above the same "
        "structure alone, "
        + fact("and the best of all", points["pruned-kd"] == max(points[step] for step in TENTH if step != "teacher"))
        + ". The epochs are equal, and the times were not measured: other programs ran.",
        f"- All widths scaled down gain {scaled:.1f} points by inherited weights and `kd`. The structure that "
        f"`isomorphic` finds, with {100 * more:.0f} % more MACs, is {found:.1f} points above them without a teacher.",
    )


def from_equal_time(study: Study) -> None:
    """Print what a teacher is worth to a student of a tenth of it where the time is equal."""
    fresh = "fresh weights, and labels"
    ways = {
        "pruned-kd": "the teacher's weights, and `kd`",
        "alone": fresh,
        "alone-clipped": f"{fresh}, `--clip auto`",
    }
    rows = {step: study.seeds(step) for step in ways}
    show(
        ["step", "training", "epochs", "CPU seconds", "test accuracy in %"],
        [
            [
                *(f"`{step}`", how, ", ".join(str(row["epochs"]) for row in rows[step])),
                ", ".join(f"{row['cpu_seconds']:.0f}" for row in rows[step]),
                f"{study.percent(step)} ({study.each(step)})",
            ]
            for step, how in ways.items()
        ],
        left=2,
    )
    taught, alone, clipped = rows.values()
    plain, of_clipped = paired(taught, alone), paired(taught, clipped)
    seconds = [fmean(row["cpu_seconds"] for row in found) for found in (taught, clipped)]
    means = [study.mean(step) for step in ("pruned-kd", "alone-clipped")]
    say(
        "- "
        + fact("With its teacher's weights and outputs the student is ahead", plain[1] > 0)
        + f" of the one alone by {plain[0]:.1f} ± {plain[0] - plain[1]:.1f} points (pairs of equal seeds), "
        + fact("though it had fewer epochs and less computing time.", all(
            a[cost] < b[cost] for a, b in zip(taught, alone, strict=True) for cost in ("epochs", "cpu_seconds")
        )),
        "- "
        + fact("Alone and clipped it comes nearer", of_clipped[0] < plain[0])
        + f": {of_clipped[0]:.1f} points on average, with {seconds[1]:.0f} CPU seconds in place of {seconds[0]:.0f}. "
        + "So a part of the difference is the clipping, and three seeds do not tell how much: "
        + fact("the intervals overlap.", means[0]["accuracy_low"] < means[1]["accuracy_high"]),
        "- The lists are of the seeds 0, 1 and 2.",
    )  # fmt: skip
