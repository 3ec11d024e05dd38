"""MLflow (https://mlflow.org): runs of an experiment in a database, a directory or a server."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from kdtool.plugins import Tracked, Tracker

# What MLflow takes in the name of a metric or a parameter, and how long a parameter's value may be.
OTHER_CHARACTERS, LONGEST = re.compile(r"[^\w\-. /]"), 500

ID = "mlflow-run"
"""The file of a run with MLflow's number for it."""


class MLflow(Tracker):
    """Record a run at the tracking URI that is given, else at MLFLOW_TRACKING_URI, else at MLflow's own default.

    The experiment is MLFLOW_EXPERIMENT_NAME, else ``kdtool``. A directory holds a database, ``mlflow.db``.
    """

    needs: ClassVar[str] = "mlflow"
    install: ClassVar[str] = "pip install 'kdtool[mlflow]'"

    def start(self, tracked: Tracked) -> None:
        """Create the run, or go on with that of a training that was interrupted."""
        import logging

        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        logging.getLogger("alembic").setLevel(logging.WARNING)  # it reports every table of a new database
        # It does too, and prints the traceback of each failure, which kdtool tells in one line.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        self.client: Any = MlflowClient(_uri(self.place) if self.place else None)
        file = tracked.directory / ID
        if tracked.resumed and file.exists():
            self.id = file.read_text(encoding="utf-8").strip()
            self.client.update_run(self.id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "kdtool")
        experiment = self.client.get_experiment_by_name(name)
        number = self.client.create_experiment(name) if experiment is None else experiment.experiment_id
        self.id = self.client.create_run(number, run_name=tracked.name).info.run_id
        file.write_text(self.id, encoding="utf-8")
        items = list(tracked.parameters.items())
        for first in range(0, len(items), 100):  # as many as MLflow takes at once
            chunk = items[first : first + 100]
            params = [Param(_name(name), str(value)[:LONGEST]) for name, value in chunk]
            self.client.log_batch(self.id, params=params)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Record metrics."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(
            self.id, metrics=[Metric(_name(name), value, now, step) for name, value in values.items()]
        )

    def facts(self, values: Mapping[str, str]) -> None:
        """Record tags."""
        for name, value in values.items():
            self.client.set_tag(self.id, _name(name), value)

    def finish(self, failed: bool) -> None:
        """Say how the run ended."""
        self.client.set_terminated(self.id, "FAILED" if failed else "FINISHED")


def _uri(place: str) -> str:
    """Return the URI of a place; a path without a scheme is a directory with a database."""
    if re.match(r"[a-z][a-z0-9+.-]+:", place) or place in ("databricks", "uc"):
        return place
    directory = Path(place).expanduser().absolute()
    directory.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{directory}/mlflow.db"


def _name(text: str) -> str:
    return OTHER_CHARACTERS.sub("_", text)
