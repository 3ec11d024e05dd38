"""What follows from the studies of iterative distillation: the paper's claims, and how far each architecture goes."""

from __future__ import annotations

from typing import Any

from tables import Study, count, fact, say, show

__all__ = ["MOST", "from_architectures", "from_ikd", "from_mnist", "lost", "parents_kept", "reach"]

MODELS = [f"M{number}" for number in range(5)]
MOST = 2
"""Points of error that a model may lose against M0, in the comparison of architectures."""


def architectures(small: Study, others: Study) -> dict[str, list[dict[str, Any]]]:
    """Return the rows M0 to M4 of each network; of the ResNet-20 of ``small``, that is of the same seed."""
    rows = {"ResNet-20": [small.seeds(model)[0] for model in MODELS]}
    for key, name in (("wrn-16-2", "WRN-16-2"), ("densenet-bc-100-12", "DenseNet-BC-100-12"), ("vgg8", "VGG-8")):
        rows[name] = [others.mean(model, network=key) for model in MODELS]
    return rows


def alike(small: Study, others: Study) -> list[dict[str, Any]]:
    """Return the row of each network that has about as many parameters as M2 of the ResNet-20."""
    rows = architectures(small, others)
    size = rows["ResNet-20"][2]["parameters"]
    return [min(models, key=lambda row: abs(row["parameters"] - size)) for models in rows.values()]


def parents_kept(small: Study) -> tuple[int, int]:
    """Return how often the parent was kept as the best teacher of M2 to M4, and how often there was a choice."""
    chosen = [
        model
        for row in small.seeds("ancestral")
        for model in row["models"]
        if model["kept"] and model["model"] in MODELS[2:]
    ]
    return sum(model["taught_by"] == f"M{int(model['model'][1]) - 1}" for model in chosen), len(chosen)


def reach(small: Study, others: Study) -> dict[str, float]:
    """Return the largest compression of each network with at most `MOST` points more error than its M0."""
    return {
        name: max(row["compression"] for row in rows if 100 * (row["error"] - rows[0]["error"]) <= MOST)
        for name, rows in architectures(small, others).items()
    }


def lost(study: Study) -> list[float]:
    """Return how many points more error M0 to M4 have when half of their weights are set to zero."""
    return [100 * (study.mean(f"{model}-pruned")["error"] - study.mean(model)["error"]) for model in MODELS]


def from_architectures(small: Study, others: Study) -> None:
    """Print how far the iterations take each architecture."""
    rows, farther = architectures(small, others), reach(small, others)
    show(
        [
            "network",
            *(f"E (C) of {model}" for model in MODELS),
            f"C with at most {MOST} more points",
            "parameters of M0",
        ],
        [
            [
                network,
                *(f"{100 * row['error']:.1f} ({row['compression']:.0f}x)" for row in models),
                f"{farther[network]:.0f}x",
                count(models[0]["parameters"]),
            ]
            for network, models in rows.items()
        ],
    )
    same = alike(small, others)
    sizes, errors = ([row[key] for row in same] for key in ("parameters", "error"))
    say(
        "**"
        + fact("How far it goes depends on the architecture", min(farther.values()) * 3 < max(farther.values()))
        + f"**: to {farther['ResNet-20']:.0f}x for the ResNet-20, to "
        f"{min(value for name, value in farther.items() if name != 'ResNet-20'):.0f}x and more for the others. "
        + fact("But mostly on what is left", max(errors) < 0.1)
        + f": the models with {count(min(sizes))} to {count(max(sizes))} parameters, M2 to M4, have errors of "
        f"{100 * min(errors):.1f} to {100 * max(errors):.1f} %, whatever they began with. So a large M0 can be "
        "compressed further, as the paper finds.",
    )


def from_ikd(study: Study, others: Study, mnist: Study) -> None:
    """Print the table of the paper's claims about iterative distillation."""
    on_mnist, choices_on_mnist = parents_kept(mnist)
    first = study.mean("M0")["parameters"]
    parents, choices = parents_kept(study)
    error = {step: 100 * study.mean(step)["error"] for step in MODELS}
    more = lost(study)
    times = {step: first / study.mean(step)["parameters"] for step in MODELS}
    fewer = first / study.mean("M2-pruned")["nonzero"]
    farthest = ", ".join(f"{value:.0f}x ({network})" for network, value in reach(study, others).items())
    halved = fact("half of their weights can go", max(more[:3]) < 0.5)
    lose = fact("M3 and M4, which have no weight to spare, lose by it.", min(more[3:]) > 3)
    always = fact("**Agree on MNIST** for all five.", max(lost(mnist)) < 0.2)
    show(
        ["claim", "here"],
        [
            [
                "The parent is the best teacher.",
                f"**No difference on the digits**: the parent was kept in {parents} of {choices} choices (M2 to M4, "
                "three seeds), about as often as chance would. The candidates of a model differ less than its seeds "
                f"do. **Agree on MNIST**: in {on_mnist} of {choices_on_mnist}. Keeping only the parent costs nothing, "
                "which is the paper's practical conclusion.",
            ],
            [
                "The error grows slowly.",
                f"**Agree to {times['M2']:.0f}x**, where it is {error['M2']:.1f} %; **disagree beyond**: at "
                f"{times['M3']:.0f}x, with widths of 2, 4 and 8, it is {error['M3']:.1f} %.",
            ],
            [
                "The compression that is possible depends on the architecture.",
                f"**Agree**: with at most {MOST} more points of error {farthest}; one seed. Mostly it is what is left "
                "that decides, not the ratio.",
            ],
            [
                "Pruning after the iterations compresses further.",
                f"**Agree for M0 to M2 on the digits**: {halved}, and M'2 has {fewer:.0f}x fewer weights than M0. "
                f"{lose} {always}",
            ],
        ],
        left=2,
    )


def from_mnist(study: Study) -> None:
    """Print the models on MNIST with their pruned ones, and what follows for the claims."""
    first = study.mean("M0")["parameters"]
    show(
        ["S", "T", "E", "C", "parameters", "E of M'i", "nonzero of M'i"],
        [
            [
                *(step, "labels" if step == "M0" else f"M{int(step[1]) - 1}", study.percent(step, "error", 2)),
                *(f"{first / study.mean(step)['parameters']:.0f}x", count(study.mean(step)["parameters"])),
                study.percent(f"{step}-pruned", "error", 2),
                count(study.mean(f"{step}-pruned")["nonzero"]),
            ]
            for step in MODELS
        ]
        + [["M4's structure", "labels", study.percent("alone", "error", 2), "", "", "", ""]],
        left=2,
    )
    parents, choices = parents_kept(study)
    error = {step: 100 * study.mean(step)["error"] for step in (*MODELS, "alone")}
    say(
        fact("**The parent is the best teacher**", parents > choices / 2)
        + f": it was kept in {parents} of {choices} choices (M2 to M4, three seeds; `ikd --teachers ancestral`). "
        + fact("**The error grows slowly**", error["M2"] - error["M0"] < MOST)
        + f" to M2, {first / study.mean('M2')['parameters']:.0f}x smaller with "
        f"{error['M2'] - error['M0']:.1f} points more, and "
        + fact("fast beyond", error["M4"] - error["M2"] > 3 * MOST)
        + ". "
        + fact("**Pruning costs nothing** at any size", max(lost(study)) < 0.2)
        + f": with half of the weights set to zero the models lose at most {max(*lost(study), 0):.2f} points. "
        + fact("**M4 learns more from the labels alone**", error["alone"] < error["M4"] - MOST)
        + f" ({error['alone']:.1f} % error, {error['M4']:.1f} % with its teacher): outputs at a temperature of 20 are "
        "nearly uniform, and a network with so few weights spends its epochs on them."
    )
