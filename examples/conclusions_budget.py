"""What `kdtool compress` found beside the ways that one would choose by hand, from the results of their studies."""

from __future__ import annotations

from tables import Study, count, fact, say, show

__all__ = ["from_one_hour", "from_twenty_minutes"]

LIMIT = 0.35
"""The budget of latency, as a part of the teacher's."""

WAYS = {
    "compressed": "`compress --max-latency 0.35x`",
    "pruned": "`filter-l1` down to that latency",
    "halved": "`halve` to 0.59 of the widths, then `kd`",
    "family": "`timm:resnet10t`, then `kd`",
}
"""The ways to a student, by their steps."""


def from_twenty_minutes(study: Study) -> None:
    """Print the students, and which of them met the budget."""
    rows = {step: study.mean(step) for step in WAYS}
    found = next(row for row in study.seeds("compressed")[0]["models"] if row["note"] == "winner")
    ratios = {step: float(study.mean(f"{step}-file")["latency_ratio"]) for step in ("halved", "pruned", "family")}
    ratios["compressed"] = float(found["latency_ratio"])
    show(
        ["way", "test accuracy in %", "latency", "MACs in M", "CPU seconds of training"],
        [
            [
                *(how, study.percent(step, digits=2), f"{ratios[step]:.2f}x"),
                *(f"{rows[step]['macs'] / 1e6:.1f}", count(rows[step]["cpu_seconds"])),
            ]
            for step, how in WAYS.items()
        ],
    )
    within = [step for step in WAYS if ratios[step] <= LIMIT]
    say(
        fact("Two of the four are within the budget", within == ["compressed", "pruned"])
        + fact(
            ", alike in accuracy",
            abs(rows["compressed"]["accuracy"] - rows["pruned"]["accuracy"]) < 0.005
            and study.mcnemar("compressed", "pruned") > 0.05,
        )
        + f" (McNemar's p = {study.mcnemar('compressed', 'pruned'):.2f}): what `compress` found, "
        + f"`{found['model']}`, and the pruned network. "
        + fact(
            "`halve` has the fewest MACs and is far beyond the budget",
            ratios["halved"] > 2 * LIMIT and rows["halved"]["macs"] == min(row["macs"] for row in rows.values()),
        )
        + ", since onnxruntime is slow with its numbers of channels, such as 151; `--round-to 8` avoids that, and "
        "`compress` does. Latencies are those of the exported files, that of the winner in 8 bits is from before its "
        "training."
    )


def from_one_hour(study: Study) -> None:
    """Print what an hour found, beside three ways that one would choose by hand with an hour each."""
    ways = {step: study.mean(step) for step in WAYS}
    by_hand = [step for step in WAYS if step != "compressed"]
    tried = [one for one in study.seeds("compressed")[0]["models"] if one["val_accuracy"] is not None]
    found = next(one for one in tried if one["note"] == "winner")
    files = {step: study.mean(f"{step}-file") for step in by_hand}
    latency = {step: file["latency_ratio"] for step, file in files.items()} | {"compressed": found["latency_ratio"]}
    show(
        [
            "way",
            "test accuracy in %",
            "epochs",
            "CPU seconds of training",
            "seconds of the command",
            "latency in 8 bits",
        ],
        [
            [
                *(WAYS[step], study.percent(step, digits=2), row["epochs"], count(row["cpu_seconds"])),
                *(count(row["seconds"]), f"{latency[step]:.2f}x"),
            ]
            for step, row in ways.items()
        ],
    )
    best = max(by_hand, key=lambda step: ways[step]["accuracy"])
    others = [step for step in by_hand if step != best]
    say(
        fact(
            "`compress` is as accurate as the best of the three by hand",
            best == "family" and abs(ways["compressed"]["accuracy"] - ways[best]["accuracy"]) < 0.001,
        )
        + fact(", the same network", found["model"] == "like arch=timm:resnet10t int8")
        + f" (McNemar's p = {study.mcnemar('compressed', best):.2f}), with "
        + fact("half of the epochs", found["epochs"] == ways["family"]["epochs"] / 2)
        + f" in full: its trials had {ways['compressed']['trial_epochs']} more. "
        + fact(
            "It is ahead of the other two",
            all(
                ways["compressed"]["accuracy"] > ways[step]["accuracy"] and study.mcnemar("compressed", step) < 0.05
                for step in others
            ),
        )
        + f" (p at most {max(study.mcnemar('compressed', step) for step in others):.3f}). "
        + "What it measured and tried:"
    )
    show(
        ["network", "validation accuracy", "epochs", "latency", "MACs"],
        [
            [
                one["model"] + (" (the winner)" if one["note"] == "winner" else ""),
                f"{100 * one['val_accuracy']:.1f} %",
                "" if one["epochs"] is None else f"{one['epochs']:g}",
                f"{one['latency_ratio']:.2f}x",
                f"{one['macs'] / 1e6:.1f} M",
            ]
            for one in tried
        ],
    )
    say(
        "In 8 bits those by hand have "
        + ", ".join(f"{study.percent(f'{step}-file', digits=2)} % ({step})" for step in by_hand)
        + " of the test images."
    )
