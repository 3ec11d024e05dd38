"""What the ladders of training recipes show, from the results of their studies."""

from __future__ import annotations

from statistics import median

from tables import Study, fact, say, show, spread

__all__ = ["cpu_seconds", "from_cifar10", "from_clipping", "from_digits", "from_kept_weights", "from_mnist"]

LADDER = {
    "adam": "Adam at 0.001, cosine, batches of 64: this is `quick`",
    "sgd": "SGD with one cycle up to 0.1, batches of 128",
    "decay": "weight decay 5e-4",
    "norms": "none on norms and biases: this is `standard` where Muon costs too much",
    "muon": "Muon with one cycle up to 0.008, weight decay 0.1: this is `standard`",
}
"""The rows that each change the one before."""

CHANGES = {
    "smoothing": "`--label-smoothing 0.1`",
    "ema": "`--ema 0.99`",
    "erase": "`--erase 0.25`",
    "trivial": "`--augment trivial`",
    "mixup": "`--mixup 0.2`",
    "cutmix": "`--cutmix 1`",
}
"""The rows that each change the top of the ladder."""


def from_digits(study: Study) -> None:
    """Print the ladder on the digits, and that it tells no row from another."""
    rows = _show_ladder(study, top="norms")
    intervals = [(study.mean(step)["accuracy_low"], study.mean(step)["accuracy_high"]) for step in rows]
    overlap = max(low for low, _ in intervals) < min(high for _, high in intervals)
    say(fact("The intervals of all rows overlap: three seeds of so few images tell none from another.", overlap))


def from_mnist(study: Study) -> None:
    """Print the ladder on a tenth of MNIST, and what its steps bring."""
    rows = _show_ladder(study, top="muon", digits=2)
    gain, more, whole = (
        100 * float(study.mean(above)["accuracy"] - study.mean(below)["accuracy"])
        for above, below in (("muon", "norms"), ("smoothing", "muon"), ("smoothing", "adam"))
    )
    others = {step for step in rows if _differ(study, step, "muon")} & CHANGES.keys() - {"smoothing"}
    say(
        fact(f"Muon brings {gain:.2f} points over SGD", _ahead(study, "muon", "norms"))
        + fact(f", and label smoothing {more:.2f} more", _ahead(study, "smoothing", "muon"))
        + ": of these, each seed of the one is ahead of each seed of the other. "
        + fact("No other change at the top does as much. ", not others)
        + f"From `quick` to the best row it is {whole:.2f} points, "
        + fact("a third of the errors.", 0.3 < whole / (100 * study.mean("adam")["error"]) < 0.4)
    )


def from_cifar10(study: Study) -> None:
    """Print the ladder on half of CIFAR-10, and what its steps bring."""
    rows = _show_ladder(study, top="muon")
    mean = {step: 100 * float(study.mean(step)["accuracy"]) for step in rows}
    steps = [("sgd", "adam"), ("muon", "norms"), ("muon", "adam")]
    schedule, muon, whole = (mean[above] - mean[below] for above, below in steps)
    changes = {step: f"`{step}` ({mean[step] - mean['muon']:+.1f})" for step in rows if step in CHANGES}
    better = [text for step, text in changes.items() if _ahead(study, step, "muon")]
    worse = [text for step, text in changes.items() if _ahead(study, "muon", step)]
    say(
        fact(f"From `quick` to `standard` it is {whole:.1f} points", _ahead(study, "muon", "adam"))
        + fact(f": SGD with one cycle brings {schedule:.1f} over Adam", _ahead(study, "sgd", "adam"))
        + fact(f", and Muon {muon:.1f} over SGD", _ahead(study, "muon", "norms"))
        + ", each with every seed ahead of every other. "
        + fact(
            f"Weight decay brings {mean['decay'] - mean['sgd']:.1f}, none on norms and biases nothing more. ",
            mean["decay"] > mean["sgd"] and not _differ(study, "norms", "decay"),
        )
        + "Of the changes to `standard`, every seed is ahead of all of its with "
        + (", ".join(better) or "none")
        + ", and behind all of its with "
        + (", ".join(worse) or "none")
        + ": presumably ten epochs are too few for what makes images harder."
    )


def _show_ladder(study: Study, top: str, digits: int = 1) -> list[str]:
    """Print a row for each step of a ladder, and return the steps; ``top`` is the step that the others change."""
    steps = {row["step"] for row in study.rows}
    rows = {step: how for step, how in LADDER.items() if step in steps}
    rows |= {step: f"`{top}` and {how}" for step, how in CHANGES.items() if step in steps}
    best = max(rows, key=lambda step: float(study.mean(step)["accuracy"]))
    show(
        ["row", "one change", "test accuracy in %", "each seed", "CPU seconds"],
        [
            [
                *(f"`{step}`", how),
                _bold(spread(study.mean(step), "accuracy", 100, digits), step == best),
                *(study.each(step, digits=digits), f"{cpu_seconds(study, step):.0f}"),
            ]
            for step, how in rows.items()
        ],
        left=2,
    )
    return list(rows)


def _ahead(study: Study, above: str, below: str) -> bool:
    """Return whether each seed of one step is more accurate than each seed of another."""
    return bool(min(_accuracies(study, above)) > max(_accuracies(study, below)))


def _differ(study: Study, one: str, other: str) -> bool:
    return _ahead(study, one, other) or _ahead(study, other, one)


def _accuracies(study: Study, step: str) -> list[float]:
    return [row["accuracy"] for row in study.seeds(step)]


def from_kept_weights(study: Study) -> None:
    """Print which recipe suits a network that keeps weights of its teacher."""
    pruned, narrow = "channels removed by `isomorphic`", "all widths scaled down"
    rows = [
        (pruned, "kept", "pruned", {"repair": "none"}),
        (pruned, "kept, corrected by least squares", "pruned", {"repair": "least-squares"}),
        (narrow, "kept, corrected by least squares", "narrow", {}),
    ]

    def accuracy(step: str, **values: str) -> float:
        return 100 * float(study.mean(step, **values)["accuracy"])

    pairs = [[accuracy(step, **values, recipe=recipe) for recipe in ("quick", "standard")] for *_, step, values in rows]
    fresh = accuracy("fresh")
    show(
        ["structure", "weights", "`quick`", "`standard`"],
        [
            *([structure, weights, *(f"{one:.1f}" for one in pair)] for (structure, weights, *_), pair in
              zip(rows, pairs, strict=True)),
            [narrow, "fresh", "", f"{fresh:.1f}"],
        ],
        left=2,
    )  # fmt: skip
    gains = [standard - quick for quick, standard in pairs]
    say(
        "- "
        + fact("`standard` is ahead in every pair", min(gains) > 0)
        + f", by {min(gains):.1f} to {max(gains):.1f} points of test accuracy; one seed and 10,000 images tell "
        "differences of about a point.",
        "- "
        + fact(
            f"The teacher's weights are worth {pairs[-1][1] - fresh:.1f} points over fresh ones in so short a "
            "training.",
            pairs[-1][1] > fresh,
        )
        + " "
        + fact(
            "Whether pruned ones are corrected makes no difference after six epochs.",
            max(abs(plain - corrected) for plain, corrected in zip(*pairs[:2], strict=True)) < 0.5,
        ),
    )


def from_clipping(study: Study) -> None:
    """Print what clipped gradients bring a network that keeps weights."""
    ways = {"1e9": "not clipped", "auto": "`--clip auto`"}
    show(
        ["gradients", "test accuracy in %"],
        [[how, study.percent("pruned", clip=clip)] for clip, how in ways.items()],
    )
    plain, clipped = (100 * float(study.mean("pruned", clip=clip)["accuracy"]) for clip in ways)
    say("With one seed " + fact(f"the clipped student is {clipped - plain:.1f} points ahead.", clipped > plain + 1))


def cpu_seconds(study: Study, step: str) -> float:
    """Return the median over seeds of the CPU seconds that a step took."""
    return median(row["cpu_seconds"] for row in study.seeds(step))


def _bold(text: str, is_best: bool) -> str:
    return f"**{text}**" if is_best else text
