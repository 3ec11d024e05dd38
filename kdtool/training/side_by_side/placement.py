"""Where trainings that do not depend on each other run: one after the other here, or side by side on a Ray cluster."""

from __future__ import annotations

from typing import ClassVar

from kdtool.plugins.options import Options, option
from kdtool.utils.ray_cluster import Resources


class Placement(Options):
    """Options of where independent trainings run. They change no result."""

    used_with: ClassVar = {"ray_cpus": "ray", "ray_gpus": "ray"}

    ray: str | None = option(
        None, help="run trainings side by side as tasks of a Ray cluster: auto, or HOST:PORT of its head"
    )
    ray_cpus: float = option(1.0, above=0, help="cores of each task")
    ray_gpus: float | None = option(
        None, minimum=0, help="GPUs of each task, parts of one too; unset: 1 if the cluster has any"
    )

    @property
    def resources(self) -> Resources:
        """What a task takes of a machine."""
        return Resources(self.ray_cpus, self.ray_gpus)

    def __post_init__(self) -> None:
        """Check the resources."""
        super().__post_init__()
        self.resources  # noqa: B018
