"""The contract of a distiller: how a teacher teaches a student, in one training or in several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from kdtool.distillation.weighted_sum import sum_class
from kdtool.errors import UsageError
from kdtool.plugins.entry_points import installed
from kdtool.plugins.method import Method
from kdtool.plugins.method_code import not_overridden
from kdtool.plugins.registry import load
from kdtool.training.objective import Objective

if TYPE_CHECKING:
    from kdtool.models.architecture import Network
    from kdtool.plugins.schedule import Schedule
    from kdtool.training.run import Run


class Distiller(Method):
    """Teach a student in one or more trainings.

    Override `distill`. A method that is one training with its own loss is a `LossDistiller`.
    """

    kind: ClassVar[str] = "distillers"
    makes_student: ClassVar[bool] = False
    """Whether `distill` makes the student itself, so that the user cannot give one."""
    needs_student: ClassVar[bool] = True
    """Whether the user must give a student; if not, `distill` makes one when none is given."""
    several_teachers: ClassVar[bool] = False
    """Whether it needs two or more teachers; `distill` finds them in ``run.teachers``."""
    one_training: ClassVar[bool] = False
    """Whether `distill` trains the given student, as it is, in one training and returns it, so that it may round."""
    recipe_by_steps: ClassVar[bool] = False
    """Whether its trainings begin with fresh weights and suit a recipe that is chosen by the number of steps."""
    fits: ClassVar[str] = ""
    """One sentence for the help: when to use the method."""

    @classmethod
    def check_student(cls, *, named: bool, refined: bool) -> None:
        """Check that there is exactly one source of the student, or none if the method makes its students itself.

        ``named`` tells whether a student is given, ``refined`` whether a refiner is given.

        Raises:
            UsageError: no student is given, or one too many.
        """
        if cls.makes_student:
            if named:
                raise UsageError(f"--student: {cls.name} makes its students itself; choose how with --refiner")
        elif named and refined:
            raise UsageError("--student and --refiner both give a student; give only one of them")
        elif not named and not refined and cls.needs_student:
            raise UsageError(
                f"--method {cls.name} needs a student: --student SOURCE:NAME, --student FILE or --refiner NAME"
            )

    @classmethod
    def check_precision(cls, quantize: str) -> None:
        """Check that the method can train a student that rounds to ``quantize``; ``off`` is any method's.

        Raises:
            UsageError: it makes or edits its students, or trains them in several phases.
        """
        # A subclass of a loss that overrides `distill` may do anything there.
        if quantize != "off" and not cls.one_training and cls.distill is not LossDistiller.distill:
            raise UsageError(
                f"--quantize {quantize}: {cls.name} makes or edits its students or trains them in parts; use a method "
                f"with one loss, such as kd, or quantise its result: --student FILE --method kd --quantize {quantize}"
            )

    @classmethod
    def check_teachers(cls, count: int) -> None:
        """Check that the number of teachers suits the method: one, or two and more if it needs several.

        Raises:
            UsageError: it does not.
        """
        if cls.several_teachers and count < 2:
            raise UsageError(f"--method {cls.name} learns from several teachers; give two or more checkpoints")
        if not cls.several_teachers and count != 1:
            hint = _hint_for_several() if count else ""
            raise UsageError(f"--method {cls.name} learns from one teacher, not {count or 'none'}{hint}")

    @property
    def trains_side_by_side(self) -> bool:
        """Whether some of its trainings do not depend on each other, so that a cluster can do them (`Run.each`)."""
        return False

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Train the student and return it; ``student`` is None if the method makes it itself."""
        raise not_overridden(self, "distill")

    @classmethod
    def options_within(
        cls, teacher: Network, cost: str, share: float, *, epochs: int, exporter: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Return the options with which the student that the method makes costs at most a share of the teacher's cost.

        ``kdtool compress`` asks methods that make their student in a training (`makes_student`); what they make is
        measured after it. ``cost`` is ``latency``, ``macs`` or ``params``, ``epochs`` the length of each training of
        the trial. ``exporter`` is an exporter as plain data, which measures latencies as the budget means them. None,
        the default, means that the method takes no part.
        """
        return None

    @classmethod
    def fills_role(cls) -> bool:
        """Return whether the method can be an option of another method, which needs a loss."""
        return issubclass(cls, LossDistiller)

    @classmethod
    def combine(cls, text: str, find: Callable[[str], type[Self]]) -> type[Self]:
        """Return the class of the sum of losses that a text such as ``kd:0.9+at:1000`` describes.

        Raises:
            UsageError: a term is no loss, occurs twice, or has no valid weight.
        """
        return sum_class(text, LossDistiller, find)

    @classmethod
    def from_old_form(cls) -> type[Self]:
        """Return the class; one with a loss as a `LossDistiller`, since `Distiller` had the loss before 0.2."""
        if not hasattr(cls, "loss") or issubclass(cls, LossDistiller):
            return cls
        body = {"__doc__": cls.__doc__, "__module__": cls.__module__, "name": cls.name}
        return type(cls.__name__, (cls, LossDistiller), body)


class LossDistiller(Objective, Distiller):
    """Teach a student in one training with a loss.

    Override `loss`, and also `watch` if the loss compares feature maps.
    """

    recipe_by_steps: ClassVar[bool] = True
    weight_option: ClassVar[str] = "weight"
    """The option that holds the weight of the teacher's term; ``NAME:NUMBER`` in a sum of losses sets it."""
    weight_options: ClassVar[tuple[str, ...]] = ()
    """All options that weigh the teacher's terms, if there are others than ``weight_option``."""

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Train the student with this loss and return it."""
        self.check_student(named=student is not None, refined=False)
        assert student is not None
        return run.fit(self.name, student, teacher=teacher, objective=self).network

    def weights(self, part: str = "") -> Mapping[str, float | Schedule]:
        """Return the values of the options that weigh the teacher's terms, by flag; without those that are unset."""
        declared = {info.name: info.flag for info in self.describe()}
        names = self.weight_options or (self.weight_option,)
        values = {declared[name]: getattr(self, name) for name in names if name in declared}
        return {flag: value for flag, value in values.items() if value is not None}


def _hint_for_several() -> str:
    """Return the end of a message that names the built-in methods for several teachers; empty if there are none."""
    plugins = [plugin for plugin in installed() if plugin.kind == Distiller.kind and plugin.builtin]
    names = [plugin.name for plugin in plugins if load(plugin).several_teachers]
    return f"; for several teachers use --method {' or '.join(names)}" if names else ""
