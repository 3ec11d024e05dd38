"""Born-again networks (Furlanello, Lipton, Tschannen, Itti and Anandkumar, 2018, arXiv:1805.04770)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import Distiller, LossDistiller, nested, option

if TYPE_CHECKING:
    from kdtool import Network, Run


class BornAgain(Distiller):
    """Train the same structure several times from fresh weights, each time taught by the generation before (Furlanello
    et al., 2018).

    With B_0 the teacher, generation B_k has fresh weights, each generation from another seed, and is trained on the
    objective with B_(k-1) as teacher. All have the structure of the student, or of the teacher if no student is given.
    The default objective, none:1+kd:1 at T = 1, gives the labels and the teacher the same weight.

    The result is the generation with the best validation accuracy, plain or as ``--select`` says. The mean of the
    probabilities of all generations is reported as the ensemble. The run keeps the generations, so that they can teach
    together (--method ensemble).
    """

    also_called: ClassVar[tuple[str, ...]] = ("ban", "born-again-networks")
    fits: ClassVar[str] = "Fits if the model should become better, not smaller."
    needs_student: ClassVar[bool] = False

    generations: int = option(3, minimum=1, help="number of generations after the teacher")
    objective: LossDistiller = nested(
        "distillers", "none:1+kd:1", kd={"temperature": 1.0}, help="distiller whose loss is used"
    )

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Train the generations and return the one that validates best."""
        from kdtool.utils import deciding
        from kdtool_distillers.mean_of import mean_of

        last, generations, validated = teacher, [], []
        for number in range(1, self.generations + 1):
            name = f"generation {number}"
            # A student that the user named starts from its own weights.
            structure = student if student is not None and number == 1 else run.reinitialize(name, student or teacher)
            fit = run.fit(name, structure, teacher=last, objective=self.objective)
            last = fit.network
            generations.append(last)
            score = run.evaluate(last)
            validated.append((deciding(score), -score["loss"]))
            run.keep(name, last, taught_by=f"generation {number - 1}" if number > 1 else "teacher")
        if len(generations) > 1:
            run.add_row("ensemble", mean_of(generations), taught_by="")
        return generations[validated.index(max(validated))]
