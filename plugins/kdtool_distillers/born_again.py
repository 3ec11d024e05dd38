"""Born-again networks (Furlanello, Lipton, Tschannen, Itti and Anandkumar, 2018, arXiv:1805.04770)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import Distiller, LossDistiller, nested, option

if TYPE_CHECKING:
    from kdtool import Network, Run


class BornAgain(Distiller):
    """Train the same structure anew with its former self as teacher, generation after generation (Furlanello et al.,
    2018).

    With B_0 the teacher, generation B_k has fresh weights, those of another seed than the generation before, and is
    trained on the objective with B_(k-1) as teacher. All have the student's structure, or where none is given the
    teacher's. The default objective, none:1+kd:1 at T = 1, makes the labels and the teacher count alike.

    The result is the generation that validates best. The mean of the probabilities of all generations is reported as
    the ensemble; the generations are kept in the run, and can teach together (--method ensemble).
    """

    fits: ClassVar[str] = "Fits where the model should not get smaller but better."
    needs_student: ClassVar[bool] = False

    generations: int = option(3, minimum=1, help="how many generations there are behind the teacher")
    objective: LossDistiller = nested(
        "distillers", "none:1+kd:1", kd={"temperature": 1.0}, help="distiller whose loss is used"
    )

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Train the generations, and return the best by validation."""
        from kdtool_distillers.mean_of import mean_of

        last, generations, validated = teacher, [], []
        for number in range(1, self.generations + 1):
            name = f"generation {number}"
            # A student that was named begins with the weights that it has.
            structure = student if student is not None and number == 1 else run.reinitialize(name, student or teacher)
            fit = run.fit(name, structure, teacher=last, objective=self.objective)
            last = fit.network
            generations.append(last)
            score = run.evaluate(last)
            validated.append((score["accuracy"], -score["loss"]))
            run.keep(name, last, taught_by=f"generation {number - 1}" if number > 1 else "teacher")
        if len(generations) > 1:
            run.add_row("ensemble", mean_of(generations), taught_by="")
        return generations[validated.index(max(validated))]
