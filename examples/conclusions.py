"""What follows from the tables of the examples: text with numbers of the results, which ``fact`` holds to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tables import Study, fact, say, show

__all__ = ["from_frontier", "from_gated", "from_gated_mnist", "from_ikd"]

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


def from_ikd(study: Study) -> None:
    """Print the table of the paper's claims about iterative distillation."""
    models = [f"M{number}" for number in range(5)]
    first = study.mean("M0")["parameters"]
    chosen = [
        model
        for row in study.seeds("ancestral")
        for model in row["models"]
        if model["kept"] and model["model"] in models[2:]
    ]
    parents = sum(model["taught_by"] == f"M{int(model['model'][1]) - 1}" for model in chosen)
    error = {step: 100 * study.mean(step)["error"] for step in models}
    lost = {step: 100 * study.mean(f"{step}-pruned")["error"] - error[step] for step in models}
    times = {step: first / study.mean(step)["parameters"] for step in models}
    fewer = first / study.mean("M2-pruned")["nonzero"]
    halved = fact("half of their weights can go", max(lost[step] for step in models[:3]) < 0.5)
    lose = fact("M3 and M4, which have no weight to spare, lose by it.", min(lost["M3"], lost["M4"]) > 3)
    show(
        ["claim", "here"],
        [
            [
                "The parent is the best teacher.",
                f"**No difference.** The parent was kept in {parents} of {len(chosen)} choices (M2 to M4, three "
                "seeds), about as often as chance would. The candidates of a model differ less than its seeds do. So "
                "keeping only the parent costs nothing, which is the paper's practical conclusion.",
            ],
            [
                "The error grows slowly.",
                f"**Agree to {times['M2']:.0f}x**, where it is {error['M2']:.1f} %; **disagree beyond**: at "
                f"{times['M3']:.0f}x, with widths of 2, 4 and 8, it is {error['M3']:.1f} %.",
            ],
            ["The compression that is possible depends on the architecture.", "Not run yet."],
            [
                "Pruning after the iterations compresses further.",
                f"**Agree for M0 to M2**: {halved}, and M'2 has {fewer:.0f}x fewer weights than M0. {lose}",
            ],
        ],
        left=2,
    )


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
    kept = fact("Everything at a tenth of the MACs keeps the accuracy", all(map(keeps, tenth)))
    full = fact(
        "`zeros` and `cluster` are as slow and as large as the teacher",
        min(of[step]["latency_ratio"] for step in ("zeros", "cluster")) > 0.95,
    )
    eighth, assistant = of["teacher-int8"], of["assistant"]
    lossless = fact("without loss", keeps(eighth))
    say(
        f"- **{kept}**, labels alone from fresh weights too: the digits are too easy to tell these ways apart. "
        "`best.toml` repeats the five best at a fiftieth with three seeds; it has not been run.",
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
