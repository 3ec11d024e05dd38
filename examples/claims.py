"""The claims of the five papers with what came out here: a table of ``README.md``.

Numbers come from the committed results where there are any, and else from the README that is named beside them
(``tests/examples/test_numbers.py`` compares them).
"""

from __future__ import annotations

from pathlib import Path

from claim import Claim
from claims_ikd import of_ikd
from conclusions_knowledge import gains
from conclusions_pruning import alike
from tables import show, spread, study_of

__all__ = ["show_claims"]


def show_claims(readme: str) -> None:
    """Print the table of all claims, and how many agree."""
    here = Path(readme).parent
    claims = [*of_ikd(here), *_gated(here), *_distill_vs_prune(here), *_stagewise(here), *_knowledge(here)]
    show(["study", "claim", "here", "numbers", "from", "recipe"], [claim.row() for claim in claims], left=6)
    kinds = {
        "agree": "agree in all or in part",
        "disagree": "disagree",
        "no difference": "make no difference",
        "not run": "not run",
    }
    counts = [f"{sum(claim.verdict.startswith(kind) for claim in claims)} {text}" for kind, text in kinds.items()]
    print(f"{len(claims)} claims: {', '.join(counts)}. A recipe runs with `kdtool run examples/` and its name.")


def _gated(here: Path) -> list[Claim]:
    digits, mnist = study_of(here, "gated"), study_of(here, "gated", "results-mnist.json")
    trained = study_of(here, "gated", "results-trained.json")

    def against_narrow(step: str) -> tuple[str, float]:
        """Return the accuracies of a step and of narrowing, and how much better the step is."""
        rows = [mnist.mean(name, macs="0.15x") for name in (step, "narrow-inherit")]
        text = " against ".join(spread(row, "accuracy", 100, 1) for row in rows)
        return f"MNIST at 0.15x {text}", rows[0]["accuracy"] - rows[1]["accuracy"]

    (of_paper, gain_of_paper), (gradual, gain) = against_narrow("proximal"), against_narrow("gradual")
    on_digits = " and ".join(digits.percent(step, macs="0.3x") for step in ("gradual-stream", "narrow-inherit"))
    return [
        Claim(
            *("gated", "The search meets its budget", "agree", "89.0 M of 90 M MACs for DenseNet-BC-100-12"),
            "README.md",
        ),
        Claim(
            *("gated", "Searching with the teacher's KL beats searching with the labels (NP)", "no difference"),
            *("73.1 ± 9.2 against 72.8 ± 6.4", "README.md", "resnet20.toml"),
        ),
        Claim(
            *("gated", "Costs as weights (alpha) find better structures than alpha = 1", "no difference in accuracy"),
            "73.1 ± 9.2 against 70.1 ± 9.6, which has 40 % fewer parameters",
            *("README.md", "resnet20.toml"),
        ),
        Claim(
            "gated",
            "The structure that was found beats one with all widths scaled down: the paper's search",
            *("disagree", of_paper, "results-mnist.json", "mnist.toml"),
            holds=gain_of_paper < 0,
        ),
        Claim(
            *("gated", "The same with gates that close step by step", "agree"),
            f"{gradual}; on the digits no difference ({on_digits} at 0.3x)",
            *("results-mnist.json", "mnist.toml"),
            holds=gain > 0,
        ),
        Claim(
            *("gated", "The same for a trained ResNet-20 on CIFAR-10", "agree"),
            "at 0.4x " + " against ".join(trained.percent(step) for step in ("gated", "narrow-inherit")),
            *("results-trained.json", "trained.toml"),
            holds=trained.wins("gated", "narrow-inherit") == 3,
        ),
        Claim(
            *("gated", "The student that was found can start anew", "disagree"),
            "fresh weights 66.9 ± 0.2, the searched ones 73.1 ± 9.2, all widths scaled down with fresh weights 66.9 ± "
            "1.7",
            *("README.md", "resnet20.toml"),
        ),
        *_figures(here),
    ]


def _figures(here: Path) -> list[Claim]:
    """Return what Figures 5 to 7 of the paper claim."""
    study, name = study_of(here, "gated", "results-figures.json"), "gated"
    source = ("results-figures.json", "figures.toml")
    kl, labels, alike = (study.percent(step, "error") for step in ("searched-by-kl", "searched-by-labels", "all-alike"))
    targets = [study.percent("searched-by-kl", "error")] + [
        study.percent("kl-target", "error", kl=target) for target in (0.05, 0.1, 0.4)
    ]
    penalties = [study.mean("penalty", **{"lambda": value}) for value in (0.2, 0.8, 3.2)]
    errors, epochs = ([row[key] for row in penalties] for key in ("error", "search_epochs"))
    return [
        Claim(
            *(name, "Figures 5 to 7, on the digits: the KL beats NP, and alpha beats alpha = 1"),
            "agree in direction for the KL, no difference for alpha",
            f"error {kl} (KL), {labels} (NP), {alike} (alpha = 1)",
            *source,
            holds=study.wins("searched-by-kl", "searched-by-labels") == 3,
        ),
        Claim(
            *(name, "kl_0 tells the error (the same)", "disagree"),
            f"error {', '.join(targets)} for kl_0 = 0, 0.05, 0.1, 0.4; the KL that the search ends with does tell it",
            *source,
        ),
        Claim(
            *(name, "lambda_2 sets the epochs, and fewer of them cost accuracy (the same)", "agree"),
            f"{', '.join(f'{number:.1f}' for number in epochs)} epochs, error "
            f"{', '.join(f'{100 * number:.1f}' for number in errors)} for lambda_2 = 0.2, 0.8, 3.2",
            *source,
            holds=errors == sorted(errors) and epochs == sorted(epochs, reverse=True),
        ),
    ]


def _distill_vs_prune(here: Path) -> list[Claim]:
    name = "distill-vs-prune"
    size = study_of(here, "distill-vs-prune", "results-same-size.json")
    same_size = ("results-same-size.json", "same-size.toml")
    images, distances = alike(size)
    of_two, of_other = (size.pair("distilled-95", other, network="lenet-5") for other in ("again-95", "taught-95"))
    fewest = [size.percent(f"{way}-95", digits=2, network="lenet-300-100") for way in ("taught", "distilled")]

    def on_mnist(text: str, verdict: str, numbers: str) -> Claim:
        return Claim(name, text, verdict, numbers, "README.md", "recipe.toml")

    return [
        on_mnist(
            *("Removing weights costs less accuracy than removing neurons", "agree"),
            "MNIST, LeNet-300-100: 98.27 ± 0.13 with a tenth of the weights, 98.03 ± 0.10 with half of the widths",
        ),
        on_mnist(
            *("Lottery tickets are best at high ratios", "agree"),
            "MNIST at 20x: 98.15 ± 0.11 against 97.64 ± 0.06 (LeNet-300-100), 98.81 ± 0.18 against 98.19 ± 0.27 "
            "(LeNet-5)",
        ),
        on_mnist(
            *("To prune and then distil is better than to prune", "no difference in accuracy"),
            "98.26 ± 0.04 against 98.27 ± 0.13 at 10x; but the networks are more alike (82 images differ instead of "
            "99)",
        ),
        on_mnist(
            *("Pruned networks classify more like their teacher than distilled ones", "agree"),
            "99 images differ at 10x, 110 of the distilled one with more weights",
        ),
        on_mnist(
            *("Distilled networks are nearer to their teacher by the L2 distance of outputs", "agree"),
            "7.1 against 14.5; most of it is a shift of all logits",
        ),
        Claim(
            name,
            "Two distillations are more alike than a distilled network and one that is pruned and taught",
            "no difference by images; agree by L2 where a tenth of the weights or less is left",
            f"MNIST, LeNet-5 with a twentieth: {spread(of_two, 'classified_differently', digits=0)} and "
            f"{spread(of_other, 'classified_differently', digits=0)} images, L2 {of_two['l2']:.1f} and "
            f"{of_other['l2']:.1f}",
            *same_size,
            holds=images == 0 and distances == {90, 95},
        ),
        Claim(
            *(name, "With as many weights, a pruned network that is taught is ahead of a distilled one", "agree"),
            f"MNIST, LeNet-300-100 with a twentieth: {fewest[0]} and {fewest[1]}",
            *same_size,
        ),
        Claim(
            name,
            *("ResNet-34 on CIFAR-10, students of 0.2, 1 and 2.6 M parameters", "not run", "a GPU's hours", ""),
            "distill-vs-prune-cifar10/recipe.toml",
        ),
    ]


def _stagewise(here: Path) -> list[Claim]:
    name, small = "stagewise", study_of(here, "stagewise")
    stages, at_once, alone = (
        small.mean(step, subset=0.05) for step in ("stagewise", "simultaneous-equal", "none-equal")
    )
    digits = [spread(row, "accuracy", 100, 1) for row in (stages, at_once, alone)]

    def on_cifar(text: str, verdict: str, numbers: str, recipe: str = "recipe.toml") -> Claim:
        return Claim(name, text, verdict, numbers, "README.md", recipe)

    return [
        on_cifar(
            "Stagewise beats all maps at once, and no teacher",
            "agree",
            "CIFAR-10, 10 %: 69.9 ± 0.8, 56.5 ± 1.4, 52.4 ± 1.5",
        ),
        on_cifar(
            "It gains more with less data",
            "agree",
            "69.9 ± 0.8 against 52.4 ± 1.5 (no teacher) with 10 %, 74.2 ± 0.7 against 62.3 ± 0.5 with 25 %",
        ),
        on_cifar(
            "It wins at equal epochs in all too",
            "agree",
            "CIFAR-10, no teacher with 36 epochs: 65.0 ± 1.2 against 69.9 ± 0.8",
        ),
        Claim(
            *(name, "The same, at equal epochs, on the digits", "disagree"),
            f"5 %: {digits[0]}; at once with as many epochs {digits[1]}, no teacher {digits[2]}",
            *("results-small.json", "recipe-small.toml"),
            holds=stages["accuracy"] < min(at_once["accuracy"], alone["accuracy"]),
        ),
        on_cifar(
            "It holds for 10, 14, 20 and 26 layers, and with all data",
            "agree for 10 and 14; the others not run",
            "70.3 ± 0.8 against 51.4 ± 1.0 for 14 layers",
            "full.toml",
        ),
    ]


def _knowledge(here: Path) -> list[Claim]:
    study = study_of(here, "knowledge")
    above, near, below = gains(study)
    alone, best = (study.percent("student", method=method) for method in ("none", "reviewkd"))

    def on_cifar(text: str, verdict: str, numbers: str) -> Claim:
        return Claim("knowledge", text, verdict, numbers, "README.md", "recipe.toml")

    return [
        on_cifar("A teacher helps", "agree for 7 of 12 losses", "57.1 ± 1.3 without, 63.3 to 68.2 with six of them"),
        Claim(
            *("knowledge", "The same, on the digits", "no difference for most losses"),
            f"above none by more than noise: {len(above)} of {len(above) + len(near) + len(below)} rows, below: "
            f"{len(below)}; {alone} without, {best} with `reviewkd`",
            *("results-small.json", "recipe-small.toml"),
            holds=len(near) > len(above) + len(below),
        ),
        on_cifar(
            "Features tell more than responses",
            "agree for one of two pairs of networks",
            "ResNet-56 to 20: `fitnets` 68.2 ± 1.5, `dkd` 66.1 ± 1.9; ResNet-32x4 to 8x4: `at` 55.2 ± 0.3, `dkd` 61.4 "
            "± 1.1",
        ),
        on_cifar(
            "Relations of images tell something of their own",
            "agree for `sp`, disagree for `rkd` and `cc`",
            "63.9 ± 2.1, 52.2 ± 1.5 and 56.5 ± 4.0, without a teacher 57.1 ± 1.3",
        ),
        Claim("knowledge", "With teachers that are trained well", "not run", "", "", "trained.toml"),
    ]
