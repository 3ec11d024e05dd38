"""Groups of parameters that the optimiser treats alike: by their weight decay and by their depth."""

from __future__ import annotations

from typing import Any

from torch import nn

from kdtool.errors import UsageError
from kdtool.training.options import Training


def parameter_groups(learnt: list[nn.Parameter], student: nn.Module, training: Training) -> list[dict[str, Any]]:
    """Return ``learnt`` in groups for the optimiser, each with its ``lr`` and its ``weight_decay``.

    With ``norm_decay`` off, vectors (the scales of norms, biases) and what the network itself names in
    ``no_weight_decay()`` have no weight decay. With ``layer_decay`` the rate of a layer of ``student`` is multiplied by
    that number for each layer behind it (Clark et al., 2020, arXiv:2003.10555; Bao et al., 2021, arXiv:2106.08254).
    Parameters that are not of the student, such as adapters, have the full rate.

    Raises:
        UsageError: ``layer_decay`` is asked for, and the network does not tell the order of its layers.
    """
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    apart = _without_decay(student)
    depths = _depths(student) if training.layer_decay < 1 else {}
    top = max(depths.values(), default=0)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in learnt:
        name = names.get(id(parameter), "")
        plain = not training.norm_decay and (parameter.ndim <= 1 or name in apart)
        rate = training.lr * training.layer_decay ** (top - depths.get(name, top))
        groups.setdefault((rate, 0.0 if plain else training.weight_decay), []).append(parameter)
    return [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]


def _without_decay(student: nn.Module) -> set[str]:
    named = getattr(student, "no_weight_decay", None)
    return set(named()) if callable(named) else set()


def _depths(student: nn.Module) -> dict[str, int]:
    """Return the depth of every parameter, by its name; the input comes first."""
    from timm.models import group_parameters

    matcher = getattr(student, "group_matcher", None)
    if not callable(matcher):
        raise UsageError("--layer-decay: only networks of timm tell the order of their layers; leave it out")
    depths: dict[str, int] = group_parameters(student, matcher(coarse=False), reverse=True)
    return depths
