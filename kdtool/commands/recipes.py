"""Which recipe a training follows: the one that was named, else one that suits the number of steps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from kdtool.data.checks import tell
from kdtool.data.splits import Data
from kdtool.errors import UsageError
from kdtool.models.architecture import Network
from kdtool.models.size import macs
from kdtool.training.engine import has_bf16
from kdtool.training.optimization.muon_cost import muon_pays
from kdtool.training.options import BatchSize, Training
from kdtool.training.recipes.reading import Recipe, typed
from kdtool.utils.formatting import counted

# From this many steps on, `standard` is taken: at 1,880 SGD wins over adam, at 940 Muon over SGD (examples/recipes).
STANDARD_FROM_STEPS = 1000

# The images of one of these steps.
IMAGES = 128

# Who sets one of these has a recipe of their own in mind: none is chosen for them.
OWN = ("optimizer", "lr", "schedule", "batch_size", "momentum", "weight_decay", "warmup", "milestones")

# Some choices of an option have one of their own. A method may make one of these for a phase, as gated takes SGD.
USED_BY = {"momentum": ("optimizer", ("sgd", "muon")), "milestones": ("schedule", ("multi-step",))}


def with_recipe(training: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of a training and of its data with those of the recipe that they name; given ones win.

    Without a recipe a line says which given options the others make no use of.

    Raises:
        UsageError: there is no such recipe.
    """
    if training.get("recipe") is None:
        for name, (partner, users) in USED_BY.items():
            chosen = training.get(partner, Training.info(partner).default)
            if name in training and chosen not in users:
                tell(f"--{name}: --{partner} {chosen} makes no use of it, but {' and '.join(users)}")
        return dict(training), dict(data)
    named = Training(recipe=training["recipe"]).recipe
    assert named is not None
    return {**named.training, **training}, {**named.data, **data}


def settled(
    training: Training,
    given: Mapping[str, Any],
    data: Data,
    given_data: Mapping[str, Any],
    network: Network,
    *,
    automatic: bool,
    kept: bool,
) -> tuple[Training, Data]:
    """Return the training and the data as a recipe sets them for ``network``; options that were given win.

    ``kept`` says that it goes on with weights of another training.

    With ``automatic`` one is chosen by the number of steps, and said, where none is named and none of the options that
    make up a recipe is given.

    Raises:
        UsageError: the rate of the recipe is for another optimiser than the given one.
    """
    recipe, auto = training.recipe, training.batch_size.auto
    if auto and str(given.get("batch_size")) == "auto":  # how many images a step has is left to the recipe
        given = {name: value for name, value in given.items() if name != "batch_size"}
    steps = training.epochs * math.ceil(len(data.train) / IMAGES)
    if recipe is None:
        if not automatic or any(name in given for name in OWN):
            return training, data
        recipe = Recipe.parse("standard" if steps >= STANDARD_FROM_STEPS else "quick")
    chosen, asked = _options(recipe, training, given, network, kept=kept), given.get("optimizer")
    own = chosen.get("optimizer")
    if None not in (own, asked) and own != asked and "lr" not in given:
        raise UsageError(f"--optimizer {asked}: the rate of recipe {recipe} is for {own}; give --lr too")
    changes = {name: value for name, value in chosen.items() if name not in given}
    if auto:
        changes["batch_size"] = BatchSize(changes.get("batch_size", training.batch_size), auto=True)
    spec = data.spec
    views = {"augment": spec.augment, "erase": spec.erase, **recipe.data}
    views |= {name: given_data[name] for name in views if name in given_data}
    if training.recipe is None and recipe.name != "quick":
        words = [typed(*item) for item in ({**changes, **recipe.data}).items()]
        why = f"since it has {counted(steps, 'step')} of {IMAGES} images"
        tell(f"takes recipe {recipe}, {why}: {', '.join(words)}; --recipe NAME for another one")
    return dataclasses.replace(training, **changes, recipe=recipe), data.with_augmentation(**views)


def _options(
    recipe: Recipe, training: Training, given: Mapping[str, Any], network: Network, *, kept: bool
) -> dict[str, Any]:
    """Return what a recipe sets for a network; Muon if it was asked for, or costs little on this device."""
    batch_norm = any(isinstance(part, _BatchNorm) for part in network.module.modules())
    plain = recipe.options(batch_norm=batch_norm, kept=kept)
    if not recipe.muon or not batch_norm or given.get("optimizer", "muon") != recipe.muon.get("optimizer", "muon"):
        return plain
    if "optimizer" not in given:
        if not has_bf16(training.device):
            return plain
        batch = given.get("batch_size", recipe.muon.get("batch_size", plain.get("batch_size", training.batch_size)))
        if not muon_pays(network.module, batch * macs(network.module, network.architecture.input)):
            return plain
    return recipe.options(batch_norm=batch_norm, muon=True, kept=kept)
