"""Iterative knowledge distillation (Yalburgi, Dash, Hebbalaguppe, Hegde and Srinivasan, 2020)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from kdtool import Distiller, Error, LossDistiller, Pruner, Refiner, UsageError, nested, option
from kdtool.plugins import refuse_idle

if TYPE_CHECKING:
    from kdtool import Network, Run


class IKD(Distiller):
    """Halve and distil repeatedly, each model taught by an earlier one (Yalburgi et al., 2020).

    With M_0 the teacher of structure s_0 and rho the refiner, M_i has the structure rho^i(s_0) and fresh weights, and
    is trained on the objective with a teacher M_j, j < i:

    - ``parental``: j = i - 1.
    - ``ancestral`` (Algorithm 1): one candidate for every j in 0 .. i-1, all from the same initial weights; M_i is the
      one with the smallest cross-entropy against the labels on the validation split. The objective itself cannot
      compare candidates: its teacher's term measures the distance to another teacher for each of them, and is smallest
      for the teacher that is easiest to imitate. The cross-entropy is the same measure for all, and unlike the
      accuracy it has hardly any ties on a small split. The other candidates have rows too, as "M2 from M0".

    With a tolerance (Algorithm 2), training stops at the first M_i whose validation accuracy (plain or as ``--select``
    says) is more than the tolerance below that of M*, and M* is the result. M* is the last model that was accepted
    (``last``, as in the paper), so that small drops may add up; with ``best`` a model is compared with the most
    accurate one accepted so far, so that the result is never more than the tolerance below it. A gain never stops it.
    If a pruner is given, the result is pruned.
    The paper's settings are T = 20, alpha = 0.7, Adam at 1e-4, batches of 64.
    """

    also_called: ClassVar[tuple[str, ...]] = ("iterative", "incremental")
    fits: ClassVar[str] = "Fits if it is unknown how small the model can be: it makes a series of ever smaller models."
    makes_student: ClassVar[bool] = True
    recipe_by_steps: ClassVar[bool] = True

    iters: int = option(4, minimum=1, help="number of models M_1 ... M_K to make")
    refiner: Refiner = nested("refiners", "halve", help="refiner that makes each structure from the one before")
    objective: LossDistiller = nested(
        "distillers", "kd", help="distiller whose loss is used", temperature=20.0, alpha=0.7
    )
    teachers: str = option(
        "parental",
        choices=("parental", "ancestral"),
        help="teacher of each model: the one before, or the best of all before",
    )
    tolerance: float | None = option(
        None, minimum=0, maximum=1, help="largest drop of the validation accuracy, as a fraction; unset: never stop"
    )
    drop_from: str = option(
        "last",
        choices=("last", "best"),
        help="model that the tolerance compares with: the last accepted, or the most accurate accepted",
    )
    pruner: Pruner | None = nested("pruners", help="pruner for the resulting model; unset: none")

    def __post_init__(self) -> None:
        """Check that the pruner can prune a model that is made here, and that there is a tolerance to compare by."""
        super().__post_init__()
        if self.tolerance is None:
            refuse_idle(self, ("drop_from",), "--tolerance")
        if self.pruner is not None and self.pruner.needs_early:
            raise UsageError(
                f"--pruner {self.pruner.name}: goes back to early weights, which the models of {self.name} do not "
                "have; use another one, such as magnitude"
            )

    @property
    def trains_side_by_side(self) -> bool:
        """Whether there are several candidates."""
        return self.teachers == "ancestral" and self.iters > 1

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Train M_1 ... M_K and return the last one that is kept, pruned if a pruner is given."""
        from kdtool.utils import deciding

        structures = self._structures(run, teacher)
        models = [teacher]
        run.keep("M0", teacher, taught_by="labels", kept=True)
        reference = deciding(run.evaluate(teacher))
        for i, structure in enumerate(structures, start=1):
            model, taught_by = self._next(run, models, structure)
            accuracy = deciding(run.evaluate(model))
            # A drop of exactly the tolerance is accepted; the small number absorbs the rounding of the difference.
            kept = self.tolerance is None or reference - accuracy <= self.tolerance + 1e-9
            run.keep(f"M{i}", model, taught_by=taught_by, kept=kept)
            if not kept:
                break
            models.append(model)
            reference = accuracy if self.drop_from == "last" else max(reference, accuracy)
        last = models[-1]
        if self.pruner is None:
            return last
        pruned = self.pruner.prune(run, last, last)
        run.keep(f"M{len(models) - 1} pruned", pruned, taught_by=f"M{len(models) - 1}", kept=True)
        return pruned

    def _structures(self, run: Run, teacher: Network) -> list[Network]:
        """Make all structures, before any training, so that one that cannot be made is reported at once."""
        structures = [teacher]
        for i in range(1, self.iters + 1):
            try:
                structures.append(run.refine(f"M{i}", self.refiner, structures[-1]))
            except Error as error:
                raise type(error)(f"--iters {self.iters}: M{i} cannot be made: {error}") from error
        return structures[1:]

    def _next(self, run: Run, models: list[Network], structure: Network) -> tuple[Network, str]:
        """Train the structure once with each candidate teacher; return the best by validation loss, and its teacher."""
        i = len(models)
        first = i - 1 if self.teachers == "parental" else 0

        def train(j: int, run: Run) -> Network:
            return run.fit(f"M{i} from M{j}", structure, teacher=models[j], objective=self.objective).network

        networks = run.each({f"M{i} from M{j}": partial(train, j) for j in range(first, i)}).values()
        candidates = [(run.evaluate(network)["loss"], j, network) for j, network in enumerate(networks, start=first)]
        _, best, chosen = min(candidates, key=lambda candidate: candidate[:2])
        for _, j, network in candidates:
            if j != best:
                run.add_row(f"M{i} from M{j}", network, taught_by=f"M{j}", kept=False)
        return chosen, f"M{best}"
