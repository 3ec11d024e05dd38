"""Make a smaller structure of a checkpoint's network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdtool.commands.inputs import data_for, load
from kdtool.commands.outputs import entry_of, finish_untrained, finished_untrained, named_after, target_of
from kdtool.commands.quantise import in_float
from kdtool.data.options import DataOptions
from kdtool.errors import UsageError
from kdtool.models.checkpoint import Checkpoint
from kdtool.plugins.calls import public
from kdtool.plugins.places import split
from kdtool.plugins.registry import method_class
from kdtool.surgery.refiner import InheritingRefiner, refined
from kdtool.training.options import Training


@public
def refine(
    checkpoint: str | Path | Checkpoint,
    method: str = "halve",
    *,
    seed: int = 0,
    output: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    **options: Any,
) -> Checkpoint:
    """Make a smaller structure of a checkpoint's network, with fresh or inherited weights, and write a checkpoint.

    ``seed`` sets the fresh weights; ``options`` are those of the method and `DataOptions`: a repair (``repair=``) needs
    images, by default those of the data set that the checkpoint remembers. With ``resume`` a checkpoint that the same
    command made is returned as it is. With ``dry_run`` nothing is written.

    Raises:
        UsageError: there is no such method or option, there are no images for a repair, or the output exists already
            (with ``resume``: made by another command).
        Error: this network cannot be made smaller in this way; nothing is written.
    """
    parent, seed = in_float(load(checkpoint)), Training.info("seed").check(seed)
    cls = method_class("refiners", method)
    own, data_options = split(options, cls, DataOptions)
    refiner = cls(**own)
    repairs = isinstance(refiner, InheritingRefiner) and refiner.repairs
    if data_options and not repairs:
        raise UsageError(
            f"--{next(iter(data_options)).replace('_', '-')}: only --repair uses images here; leave it out"
        )
    for name in ("augment", "erase"):
        if name in data_options:
            raise UsageError(f"--{name}: a repair takes images without augmentation; leave it out")
    target = target_of(output, named_after(parent, method), force=force, resume=resume, untrained=True)
    known = repairs and (parent.data is not None or data_options.get("data") is not None)
    data = data_for(parent, data_options) if known else None
    given = {**options, **({"seed": seed} if seed else {})}
    entry = entry_of("refine", method, parent, given, target, refiner, data=data)
    entry.record(seed=seed)
    if parent.masked and refiner.init == "fresh":
        entry.record(masked=False)  # its zeros are those of the initialisation
    if resume and (finished := finished_untrained(target, entry, force=force)) is not None:
        return finished
    with entry.timed():
        network = refined(refiner, parent.network, seed, data=data, record=entry.record_repair)
    return finish_untrained(Checkpoint(network, parent.data, [], parent.history), target, entry, dry_run=dry_run)
