"""Weights & Biases (https://docs.wandb.ai): runs of a project, on its server or offline."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from kdtool import UsageError
from kdtool.plugins import Tracked, Tracker

ID = "wandb-run"
"""The file of a run with the number that it has in W&B."""


class WandB(Tracker):
    """Record a run in the project that is given, else in WANDB_PROJECT, else in ``kdtool``.

    W&B's own variables hold: WANDB_MODE=offline writes to a directory, which ``wandb sync`` sends later, WANDB_DIR
    names it (else it is ``wandb`` beside the output), and WANDB_ENTITY is the account or team.
    """

    needs: ClassVar[str] = "wandb"
    install: ClassVar[str] = "pip install 'kdtool[wandb]'"

    def start(self, tracked: Tracked) -> None:
        """Create the run, or go on with that of a training that was interrupted."""
        import wandb

        file = tracked.directory / ID
        known = file.read_text(encoding="utf-8").strip() if tracked.resumed and file.exists() else None
        try:
            self.run: Any = wandb.init(
                project=self.place or os.environ.get("WANDB_PROJECT", "kdtool"),
                name=tracked.name,
                id=known,
                resume="allow" if known else None,
                dir=os.environ.get("WANDB_DIR", str(tracked.output.parent)),
                config=dict(tracked.parameters),
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.errors.UsageError as error:  # nobody is logged in
            reason = str(error).rstrip(".")
            raise UsageError(f"--track wandb: {reason}, or write to a directory with WANDB_MODE=offline") from error
        file.write_text(self.run.id, encoding="utf-8")
        self.run.define_metric("epoch", hidden=True)
        self.run.define_metric("*", step_metric="epoch")

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Record metrics over the epoch of their phase."""
        self.run.log({**values, "epoch": step})

    def facts(self, values: Mapping[str, str]) -> None:
        """Record texts of the result."""
        self.run.summary.update(dict(values))

    def finish(self, failed: bool) -> None:
        """Close the run."""
        self.run.finish(exit_code=1 if failed else 0)
