"""Teacher assistants (Mirzadeh, Farajtabar, Li, Levine, Matsukawa and Ghasemzadeh, 2020, arXiv:1902.03393)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import Distiller, Error, LossDistiller, Refiner, nested, option

if TYPE_CHECKING:
    from kdtool import Network, Run


class Assistant(Distiller):
    """Bridge a large gap by assistants of intermediate sizes, each of which teaches the next (Mirzadeh et al., 2020).

    With A_0 the teacher, assistant A_i has the structure that the refiner makes from A_(i-1), and fresh weights. It is
    trained on the objective with A_(i-1) as teacher. The last assistant teaches the student in the same way. If no
    student is given, its structure is what the refiner makes from the last assistant.
    """

    also_called: ClassVar[tuple[str, ...]] = ("takd", "teacher-assistant")
    fits: ClassVar[str] = (
        "Fits a student much smaller than its teacher, at the price of one more training for each assistant."
    )
    needs_student: ClassVar[bool] = False

    assistants: int = option(1, minimum=1, help="number of assistants between teacher and student")
    refiner: Refiner = nested("refiners", "halve", help="refiner that makes each assistant from the network before it")
    objective: LossDistiller = nested("distillers", "kd", help="distiller whose loss is used")

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Train the assistants, then the student."""
        structures = [teacher]
        for number in range(1, self.assistants + (student is None) + 1):
            try:
                structures.append(run.refine(f"assistant {number}", self.refiner, structures[-1]))
            except Error as error:
                what = f"assistant {number}" if number <= self.assistants else "the student"
                raise type(error)(f"--assistants {self.assistants}: {what} cannot be made: {error}") from error
        learners = structures[1:] if student is None else [*structures[1:], student]
        sizes = [sum(weight.numel() for weight in learner.module.parameters()) for learner in learners]
        if len(sizes) > 1 and sizes[-1] >= sizes[-2]:
            raise Error(
                f"the last assistant would have {sizes[-2]:,} and the student {sizes[-1]:,} parameters: there is no "
                "gap to bridge; ask for fewer --assistants, or another --refiner"
            )
        taught_by, last = "teacher", teacher
        for number, learner in enumerate(learners, start=1):
            name = f"assistant {number}" if number < len(learners) else "student"
            last = run.fit(f"{name} from {taught_by}", learner, teacher=last, objective=self.objective).network
            run.keep(name, last, taught_by=taught_by)
            taught_by = name
        return last
