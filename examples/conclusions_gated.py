"""What follows from the tables of the gated search: text with numbers of the results, which ``fact`` holds to them."""

from __future__ import annotations

from scipy.stats import pearsonr
from tables import Study, count, fact, fmean, paired, say, show, spread

__all__ = ["from_figures", "from_gated", "from_gated_mnist", "from_gated_trained"]

BUDGETS = ("0.4x", "0.3x", "0.2x")


def from_gated(study: Study) -> None:
    """Print what the searches on the digits show."""
    gradual, narrow = (study.mean(step, macs="0.3x") for step in ("gradual-stream", "narrow-inherit"))
    wins = [study.wins("gradual-stream", "proximal", macs=macs) for macs in BUDGETS]
    spared, whole = (
        [study.mean(step, macs=macs)["accuracy"] for macs in BUDGETS] for step in ("proximal-stream", "proximal")
    )
    best = fact(
        "Gates that close step by step (`gradual`) are better than the paper's (`proximal`), at every budget and with "
        "every seed.",
        wins == [3, 3, 3],
    )
    noise = fact("Against narrowing the difference is within the noise.", gradual["accuracy_low"] < narrow["accuracy"])
    fewer = fact(
        "The students of `gradual` have fewer parameters at the same MACs.",
        gradual["parameters_high"] < narrow["parameters"],
    )
    stream = fact("With `--stream-alpha 0` `proximal` is better at every budget", all(map(float.__gt__, spared, whole)))
    seconds = [study.typical_seconds(step) for step in ("gradual-stream", "narrow-inherit")]
    say(
        f"- {best}",
        f"- {noise} {fewer}",
        f"- The search computes with the large network: search and distillation took {seconds[0]}, narrowing "
        f"{seconds[1]} (medians; other work was running).",
        f"- {stream}: else its penalty closes most channels of the residual stream, whose gates save most. `gradual` "
        "spares the stream by default.",
    )


def from_gated_mnist(study: Study) -> None:
    """Print what the searches on MNIST show."""
    accuracy = {
        (step, macs): study.mean(step, macs=macs)["accuracy"]
        for step in ("gradual", "narrow-inherit")
        for macs in ("0.3x", "0.15x")
    }
    gain = {macs: accuracy["gradual", macs] - accuracy["narrow-inherit", macs] for macs in ("0.3x", "0.15x")}
    budget = 0.15 * study.mean("teacher")["macs"]
    below = {
        step: 100 * (1 - min(row["macs"] for row in study.seeds(step, macs="0.15x")) / budget)
        for step in ("gradual", "narrow-inherit")
    }
    wins = fact(
        "Gates that close step by step beat narrowing with every seed, more so at the smaller budget",
        gain["0.3x"] < gain["0.15x"] and all(study.wins("gradual", "narrow-inherit", macs=macs) == 3 for macs in gain),
    )
    say(
        f"- {wins}: by {100 * gain['0.15x']:.1f} points at 0.15x and {100 * gain['0.3x']:.1f} at 0.3x.",
        f"- Narrowing changes all widths at once and ends {below['narrow-inherit']:.1f} % below the budget of 0.15x, "
        f"`gradual` at most {below['gradual']:.1f} %.",
    )


def from_figures(study: Study) -> None:
    """Print what Figures 5 to 8 of the paper ask, as tables, with what follows from each."""
    say("**The teacher's KL against the labels (NP), and alpha = 1.** All at 0.2x, each student from fresh weights:")
    names = {
        "searched-by-kl": "KL to the teacher, alpha = what a gate saves",
        "searched-by-labels": "cross-entropy of the labels (NP)",
        "all-alike": "KL, alpha = 1 for all gates",
    }
    show(
        ["step", "search", "test error in %", "each seed", "KL in the last epoch", "parameters"],
        [
            [
                *(f"`{step}`", how, study.percent(step, "error"), study.each(step, "error")),
                *(spread(study.mean(step), "search_kl", 1, 2), count(study.mean(step)["parameters"])),
            ]
            for step, how in names.items()
        ],
        left=2,
    )
    kl, alike = (study.mean(step) for step in ("searched-by-kl", "all-alike"))
    gain, half = _difference(study, "searched-by-labels", "searched-by-kl")
    fewer = fact(
        f"it takes parameters first: {kl['parameters'] / alike['parameters']:.1f}x fewer at the same MACs.",
        alike["parameters_high"] < kl["parameters_low"],
    )
    say(
        "- "
        + fact(
            "The KL finds the better structure with every seed", study.wins("searched-by-kl", "searched-by-labels") == 3
        )
        + f", by {gain:.1f} ± {half:.1f} points: "
        + fact("the direction of the paper, within the noise of three seeds.", half > gain > 0),
        "- "
        + fact("With alpha = 1 the errors are no others", alike["error_low"] < kl["error"] < alike["error_high"])
        + f"; {fewer}",
    )
    _kl_target(study)
    _penalty(study)


def _difference(study: Study, a: str, b: str) -> tuple[float, float]:
    """Return by how many points the error of a step is larger, with half of its 95 % interval."""
    mean, low, _ = paired(study.seeds(a), study.seeds(b), "error")
    return mean, mean - low


def _kl_target(study: Study) -> None:
    """Print the errors for each kl_0, and how both are correlated."""
    say("**kl_0 against the error.** The search minimises |KL - kl_0| (`--kl-target`):")
    targets = sorted({row["values"]["kl"] for row in study.rows if "kl" in row["values"]})
    found = {0: study.seeds("searched-by-kl"), **{kl: study.seeds("kl-target", kl=kl) for kl in targets}}
    show(
        ["kl_0, in nats", "test error in %", "each seed", "KL in the last epoch"],
        [
            [
                *(f"{target:g}", f"{100 * fmean(row['error'] for row in rows):.1f}"),
                *(
                    ", ".join(f"{100 * row['error']:.1f}" for row in rows),
                    f"{fmean(row['search_kl'] for row in rows):.2f}",
                ),
            ]
            for target, rows in found.items()
        ],
    )
    points = [(target, row["error"]) for target, rows in found.items() for row in rows]
    of_target = pearsonr(*zip(*points, strict=True))
    every = [row for row in study.rows if row.get("search_kl")]
    of_last, of_others = (
        pearsonr([row["search_kl"] for row in rows], [row["error"] for row in rows])
        for rows in (every, [row for row in every if row["step"] != "penalty"])
    )
    say(
        f"- kl_0 and the error: correlation {of_target.statistic:.2f} over {len(points)} students (p = "
        f"{of_target.pvalue:.2f}). "
        + fact("No relation is seen here", of_target.pvalue > 0.05)
        + ": in these short searches most gates close in the last epochs, where the KL is far above every kl_0.",
        f"- The KL in the last epoch of the search and the error: correlation {of_last.statistic:.2f} over all "
        f"{len(every)} students (p = {of_last.pvalue:.3f}), {of_others.statistic:.2f} without those of the table below "
        f"(p = {of_others.pvalue:.3f}). "
        + fact("A search that ends nearer to its teacher finds the better student.", 0 < of_others.pvalue < 0.05),
    )


def _penalty(study: Study) -> None:
    """Print the epochs and the errors for each lambda_2."""
    say("**lambda_2 against the epochs and the error.** At most 20 epochs, one rate of the gates for all:")
    values = sorted({row["values"]["lambda"] for row in study.rows if "lambda" in row["values"]})
    rows = {value: study.seeds("penalty", **{"lambda": value}) for value in values}
    show(
        ["lambda_2", "epochs of the search", "test error in %", "each seed", "KL in the last epoch"],
        [
            [
                *(f"{value:g}", ", ".join(str(row["search_epochs"]) for row in of)),
                *(
                    study.percent("penalty", "error", **{"lambda": value}),
                    study.each("penalty", "error", **{"lambda": value}),
                ),
                f"{fmean(row['search_kl'] for row in of):.2f}",
            ]
            for value, of in rows.items()
        ],
    )
    epochs = [fmean(row["search_epochs"] for row in of) for of in rows.values()]
    errors = [fmean(row["error"] for row in of) for of in rows.values()]
    say(
        "- "
        + fact("The larger lambda_2, the fewer epochs", epochs == sorted(epochs, reverse=True))
        + " and "
        + fact("the larger the error", errors == sorted(errors))
        + f": from {100 * errors[0]:.1f} % to {100 * errors[-1]:.1f} %. With the smallest lambda_2 the budget was not "
        f"met in {max(row['search_epochs'] for row in rows[values[0]])} epochs; what mattered least was then closed.",
    )


def from_gated_trained(study: Study) -> None:
    """Print what a trained ResNet-20 leaves at 0.4 of its MACs, as a table, with what follows from it."""
    how = {"gated": "gates, step by step: 5 epochs of search, then 15", "narrow-inherit": "all widths scaled down: 20"}
    show(
        ["step", "structure, and epochs", "test accuracy in %", "each seed", "MACs", "parameters", "CPU minutes"],
        [
            [
                *(f"`{step}`", text, study.percent(step), study.each(step)),
                f"{study.mean(step)['macs'] / 1e6:.1f} M",
                count(study.mean(step)["parameters"]),
                f"{study.mean(step)['cpu_seconds'] / 60:.0f}",
            ]
            for step, text in how.items()
        ],
        left=2,
    )
    teacher = study.mean("teacher")
    gain, half = _difference(study, "narrow-inherit", "gated")
    wins = fact("The searched structure is ahead with every seed", study.wins("gated", "narrow-inherit") == 3)
    say(
        f"The teacher has {100 * teacher['accuracy']:.1f} %, {teacher['macs'] / 1e6:.1f} M MACs and "
        f"{count(teacher['parameters'])} parameters.",
        f"- {wins}, by {gain:.1f} ± {half:.1f} points (pairs of equal seeds), in about the same time. "
        + fact("Three seeds do not tell this from noise.", half > gain),
        "- The images are JPEG of quality 75. On the original pixels He et al. (2016, arXiv:1512.03385) report 91.25 % "
        "for this network, after 164 epochs.",
    )
