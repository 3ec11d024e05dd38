"""The student as the loop sees it: the part that learns, the layers that are watched, and what is learnt beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from kdtool.adapters import Each, Pair, as_maps
from kdtool.engine import Engine
from kdtool.structure.segment import Segment
from kdtool.structure.taps import Tap
from kdtool.weights import load_exactly


@dataclass(frozen=True)
class Beside:
    """What learns in the same steps as a student: other students, or exits from its middle.

    ``module`` is given the images and the student's maps [batch, channels, height, width] at the ``taps``, and returns
    a list of tensors, which a loss finds in ``step.beside``.
    """

    module: nn.Module
    taps: tuple[Tap, ...] = ()


class Pupil:
    """A network of which all, or the parameters that are named, learn.

    What does not learn is frozen: no gradient, and layers that keep statistics stay in eval mode.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        segment: Segment | None = None,
        learns: Iterable[str] | None = None,
        pairs: Sequence[Pair] = (),
        adapters: nn.Module | None = None,
        beside: Beside | None = None,
    ) -> None:
        """Prepare the part of ``module`` that ``segment`` says (None: all of it); ``learns`` are names of parameters
        (None: all), ``adapters`` maps the list of the student's maps at the ``pairs`` to what the loss is given,
        ``beside`` learns with a whole student."""
        self.module, self.segment, self.pairs = module, segment, list(pairs)
        self.adapters = Each() if adapters is None else adapters
        self.learns = None if learns is None else set(learns)
        self.beside = Beside(_Nothing()) if beside is None else beside

    def place(self, engine: Engine) -> None:
        """Move everything to the engine's device."""
        engine.place(self.module)
        engine.place(self.adapters)
        engine.place(self.beside.module)

    def parameters(self) -> list[nn.Parameter]:
        """Return what learns."""
        own = [
            parameter
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad and (self.learns is None or name in self.learns)
        ]
        return [*own, *self.adapters.parameters(), *self.beside.module.parameters()]

    def learners(self) -> Iterator[nn.Module]:
        """Yield the student and what learns with it, without the adapters."""
        yield self.module
        yield self.beside.module

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Take the gradient from what does not learn while the block runs."""
        flags = {name: parameter.requires_grad for name, parameter in self.module.named_parameters()}
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(flags[name] and (self.learns is None or name in self.learns))
        try:
            yield
        finally:
            for name, parameter in self.module.named_parameters():
                parameter.requires_grad_(flags[name])

    def train(self) -> None:
        """Put what learns in train mode."""
        self.adapters.train()
        self.beside.module.train()
        self.module.train()
        if self.learns is None:
            return
        for path, part in self.module.named_modules():
            own = [f"{path}.{name}".removeprefix(".") for name in part._parameters]
            if own and not self.learns.intersection(own):
                part.training = False

    def eval(self) -> None:
        """Put everything in eval mode."""
        self.adapters.eval()
        self.beside.module.eval()
        self.module.eval()

    def __call__(self, inputs: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return the output, the adapted outputs of the watched layers, and what `Beside` makes."""
        watched = [*(pair.student for pair in self.pairs), *self.beside.taps]
        output, maps = (self.segment or Segment()).run(self.module, inputs, watched)
        adapted = self.adapters([pair.of_student(maps[pair.student.path]) for pair in self.pairs])
        beside = self.beside.module(inputs, [as_maps(maps[tap.path], tap) for tap in self.beside.taps])
        return output, adapted, beside

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the student's output alone."""
        return (self.segment or Segment()).run(self.module, inputs)[0]

    def compare(self, maps: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return the pairs of maps that a loss compares, in float32."""
        both = zip(self.pairs, maps, teacher, strict=True)
        return [(student.float(), pair.of_teacher(taught)) for pair, student, taught in both]

    def state(self) -> dict[str, Any]:
        """Return all weights."""
        return {
            "weights": self.module.state_dict(),
            "adapters": self.adapters.state_dict(),
            "beside": self.beside.module.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go back to weights that `state` returned."""
        load_exactly(self.module, state["weights"])
        load_exactly(self.adapters, state["adapters"])
        load_exactly(self.beside.module, state["beside"])


class _Nothing(nn.Module):
    def forward(self, images: Tensor, maps: list[Tensor]) -> list[Tensor]:
        return []
