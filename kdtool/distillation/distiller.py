"""The contract of a distiller."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Self

from kdtool.distillation.weighted_sum import sum_class
from kdtool.errors import UsageError
from kdtool.plugins.entry_points import installed
from kdtool.plugins.method import Method
from kdtool.plugins.registry import load
from kdtool.training.objective import Objective

if TYPE_CHECKING:
    from kdtool.models.architecture import Network
    from kdtool.training.run import Run


class Distiller(Method):
    """Teach a student, by a strategy of one or more trainings.

    Override `distill`. A method that is one training with a loss of its own is a `LossDistiller`.
    """

    kind: ClassVar[str] = "distillers"
    makes_student: ClassVar[bool] = False
    """Whether `distill` makes the student itself, so that none has to or can be given."""
    needs_student: ClassVar[bool] = True
    """Whether a student has to be given; where not, `distill` makes one of its own if there is none."""
    several_teachers: ClassVar[bool] = False
    """Whether it learns from two or more teachers, which `distill` finds in ``run.teachers``."""
    fits: ClassVar[str] = ""
    """One sentence for the help: when the method is the right one."""

    @classmethod
    def check_student(cls, *, named: bool, refined: bool) -> None:
        """Check that it is told who the student is, once, unless it makes its students itself.

        ``named`` says whether a student was given, ``refined`` whether a refiner was.

        Raises:
            UsageError: there is none, or one too many.
        """
        if cls.makes_student:
            if named:
                raise UsageError(f"--student: {cls.name} makes its students itself; choose how with --refiner")
        elif named and refined:
            raise UsageError("--student and --refiner are two ways to say who the student is; give one")
        elif not named and not refined and cls.needs_student:
            raise UsageError(
                f"--method {cls.name} needs a student: --student SOURCE:NAME, --student FILE or --refiner NAME"
            )

    @classmethod
    def check_teachers(cls, count: int) -> None:
        """Check that there are as many teachers as it learns from.

        Raises:
            UsageError: there are not.
        """
        if cls.several_teachers and count < 2:
            raise UsageError(f"--method {cls.name} learns from several teachers; name two checkpoints or more")
        if not cls.several_teachers and count > 1:
            raise UsageError(f"--method {cls.name} learns from one teacher, not {count}{_who_takes_several()}")

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Train the student and return it."""
        raise NotImplementedError

    @classmethod
    def fills_role(cls) -> bool:
        """Return whether the method can be an option of another one: it has to have a loss."""
        return issubclass(cls, LossDistiller)

    @classmethod
    def combine(cls, text: str, find: Callable[[str], type[Self]]) -> type[Self]:
        """Return the sum of losses that a text such as ``kd:0.9+at:1000`` describes.

        Raises:
            UsageError: a part of it is no loss, stands there twice, or its weight is no number.
        """
        return sum_class(text, LossDistiller, find)

    @classmethod
    def from_old_form(cls) -> type[Self]:
        """Return the class, as a `LossDistiller` where it has a loss, which was a part of `Distiller` before 0.2."""
        if not hasattr(cls, "loss") or issubclass(cls, LossDistiller):
            return cls
        body = {"__doc__": cls.__doc__, "__module__": cls.__module__, "name": cls.name}
        return type(cls.__name__, (cls, LossDistiller), body)


class LossDistiller(Objective, Distiller):
    """Teach a student by one training with a loss.

    Override `loss`, and `watch` for a loss of feature maps.
    """

    weight_option: ClassVar[str] = "weight"
    """The option that weights the teacher's term, which ``NAME:NUMBER`` in a sum of losses sets."""

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Train the student with this loss and return it."""
        self.check_student(named=student is not None, refined=False)
        assert student is not None
        return run.fit(self.name, student, teacher=teacher, objective=self).network


def _who_takes_several() -> str:
    plugins = [plugin for plugin in installed() if plugin.kind == Distiller.kind and plugin.builtin]
    found = [plugin.name for plugin in plugins if load(plugin).several_teachers]
    return f"; from several learns --method {' or '.join(found)}" if found else ""
