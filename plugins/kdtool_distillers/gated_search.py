"""The search of gated student search: what a step does to the gates, and when it is over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Budget, Callback, Objective, UsageError, option
from kdtool.plugins import Options
from kdtool_distillers.proximal import ahead, closing_threshold, shrink

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Step
    from kdtool.surgery.gates import GateCosts

# On an accelerator every look at the cost waits for the queue; on the CPU it costs next to nothing.
STEPS_BETWEEN_LOOKS = 10
REMEMBERED = ("k", "epoch", "over", "first", "rate")
MEASUREMENTS = 6
"""Of the latency, when gates are closed until it is met."""


class GateSearchOptions(Options):
    """Say how gates are searched, and until when."""

    target_macs: Budget | None = option(None, help="multiply-accumulates of the student: 0.3x of the teacher's, or 90M")
    target_params: Budget | None = option(None, help="parameters of the student: 0.3x of the teacher's, or 0.8M")
    target_latency: Budget | None = option(None, help="time in onnxruntime, as a part of the teacher's: 0.5x")
    search_epochs: int = option(10, minimum=1, help="epochs in which the budget has to be met")
    force_target: bool = option(False, help="close the gates that are smallest for what they save, if it was not met")
    round_to: int = option(
        16, minimum=1, help="layers keep multiples of this many channels; 16 is what onnxruntime likes"
    )
    search_loss: str = option("kl", choices=("kl", "ce"), help="search what matches the teacher, or the labels (NP)")
    search_temperature: float = option(4.0, above=0, help="temperature of the search's KL")
    kl_target: float | None = option(
        None, minimum=0, help="search where the KL is this many nats, |KL - kl_0|, not where it is least"
    )
    cost_weights: bool = option(True, help="penalise each gate by what it saves, or all alike (alpha = 1)")
    gate_penalty: float | None = option(
        None, above=0, help="lambda_2; unset: small at first, doubled with every epoch of the search's second half"
    )
    gate_lr: float | None = option(
        None,
        above=0,
        help="learning rate of the gates; unset: those that nothing holds close in half of the search",
    )
    weight_penalty: float = option(1e-4, minimum=0, help="lambda_1, on the squared weights")
    search_lr: float = option(0.01, above=0, help="learning rate of the weights in the search, by sgd")
    latency_every: int = option(2, minimum=1, help="epochs of the search between two measurements of the latency")

    def __post_init__(self) -> None:
        """Check that there is one budget."""
        super().__post_init__()
        told = [flag for flag, budget in self._targets() if budget is not None]
        if len(told) > 1:
            raise UsageError(f"{told[0]} and {told[1]} are two budgets; give one")
        if not told:
            raise UsageError("--method gated needs a budget: --target-macs 0.3x, --target-params or --target-latency")
        if self.target_latency is not None and not self.target_latency.relative:
            raise UsageError(f"--target-latency {self.target_latency}: give a part of the teacher's, such as 0.5x")

    def _targets(self) -> list[tuple[str, Budget | None]]:
        return [
            ("--target-macs", self.target_macs),
            ("--target-params", self.target_params),
            ("--target-latency", self.target_latency),
        ]

    @property
    def budget(self) -> tuple[str, Budget]:
        """The option that was given, and its budget."""
        return next((flag, budget) for flag, budget in self._targets() if budget is not None)

    @property
    def count(self) -> str:
        """What gates are weighed by: what the budget counts, or the MACs where it is time."""
        return "macs" if self.target_params is None else "parameters"


@dataclass(frozen=True)
class GateSearchLoss(Objective):
    """Match the teacher through gates."""

    options: GateSearchOptions

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch but for the penalties, of which the optimiser and the gates' step take care."""
        if self.options.search_loss == "ce":
            return step.cross_entropy()
        kl, target = self.divergence(step), self.options.kl_target
        # t**2 keeps the gradient the size it had at t = 1.
        return self.options.search_temperature**2 * (kl if target is None else (kl - target).abs())

    def uniform_loss(self, step: Step) -> Tensor:
        """Return the loss, KL or cross-entropy, of a student that finds all classes alike."""
        alike = dataclasses.replace(step, student=step.student.detach() * 0)
        if self.options.search_loss == "ce":
            return alike.cross_entropy()
        # A teacher that finds them all alike as well would leave nothing to weigh the penalties by.
        return (self.options.search_temperature**2 * self.divergence(alike)).clamp_min(1e-6)

    def divergence(self, step: Step) -> Tensor:
        """Return KL(teacher || student) at the search's temperature, in nats, meaned over the batch."""
        from kdtool_distillers.kd import divergence

        temperature = self.options.search_temperature
        return divergence(step.student / temperature, step.teacher / temperature)


class GateSearch(Callback):
    """Moves the gates by accelerated proximal steps, until the budget is met.

    Gate j has the threshold lambda_2 * eta * alpha_j, alpha_j = F_j / max F with F_j what it alone saves as the others
    are now. Where lambda_2 is not given, all penalties together weigh as much at first as the loss of a student that
    knows nothing (the same logits for all classes), and lambda_2 doubles with every epoch of the search's second half.
    Where eta is not given, a gate of the mean alpha that nothing holds closes in half of the search.
    """

    keeps_last: ClassVar[bool] = True

    def __init__(
        self,
        told: GateSearchOptions,
        costs: GateCosts,
        macs: GateCosts,
        measure: Callable[[nn.Module], float] | None = None,
    ) -> None:
        """Search as ``told``; ``costs`` are those that the budget counts, ``macs`` the multiply-accumulates, and
        ``measure`` returns a gated network's latency as a part of its teacher's."""
        self.told, self.costs, self.macs, self.measure = told, costs, macs, measure
        self.objective = GateSearchLoss(told)
        self.target = None if told.target_latency is not None else told.budget[1].limit(costs.total)
        self.k = self.epoch = self.steps = 0

    def begin(self, module: nn.Module, steps: int, epochs: int) -> None:
        """Take the gates as they are."""
        gates = self._gates(module)
        self.costs.to(gates.device)
        self.macs.to(gates.device)
        self.epochs, self.half = epochs, (epochs + 1) // 2
        self.looks = 1 if gates.device.type == "cpu" else STEPS_BETWEEN_LOOKS
        self.before = self.seen = gates.detach().clone()
        self.kl = gates.new_zeros(())
        self._weigh()
        self.closing = closing_threshold(steps * self.half)

    def _scale(self, step: Step) -> None:
        """Choose lambda_2 and eta, as far as they are not given, by the first batch."""
        penalty, rate = self.told.gate_penalty, self.told.gate_lr
        self.first = penalty if penalty is not None else float(self.objective.uniform_loss(step) / self.alpha.sum())
        self.rate = rate if rate is not None else self.closing / (self.first * float(self.alpha.mean()))

    def parameters(self, module: nn.Module) -> list[nn.Parameter]:
        """Return the gates."""
        return [self._gates(module)]

    @property
    def gate_penalty(self) -> float:
        """Lambda_2 in this epoch."""
        doubled = 0 if self.told.gate_penalty is not None else max(0, self.epoch - self.half + 1)
        return float(self.first * 2.0**doubled)

    def after_step(self, module: nn.Module, step: Step) -> None:
        """Move the gates by one step."""
        import torch

        from kdtool.surgery.gates import keep_last

        gates = self._gates(module)
        assert gates.grad is not None
        self.k += 1
        with torch.no_grad():
            if self.k == 1:
                self._scale(step)
            self.kl += self.objective.divergence(step)
            self.steps += 1
            threshold = self.gate_penalty * self.rate * self.alpha
            z = gates - self.rate * gates.grad
            wanted = z - threshold  # below 0 for gates that close: the lower, the sooner they would have
            moved = keep_last(shrink(z, threshold), self.before, wanted, self.costs)
            gates.grad = None
            if self.k % self.looks == 0:
                moved = self._look(moved, wanted)
            gates.copy_(ahead(moved, self.before, self.k))
            self.before = moved

    def _look(self, moved: Tensor, wanted: Tensor) -> Tensor:
        """See whether the budget is met; of the gates that closed last only as many stay closed as that takes."""
        import torch

        from kdtool.surgery.gates import close_until

        if torch.equal(moved > 0, self.seen > 0):
            self.seen = moved
            return moved
        if self.target is not None and self.costs.of(moved > 0) <= self.target:
            closed = ((moved <= 0) & (self.seen > 0)).nonzero().flatten()
            order = closed[wanted[closed].argsort(stable=True)]
            left = close_until(self.costs, (moved > 0) | (self.seen > 0), order, self.target)
            moved = torch.where(left & (moved <= 0), self.seen, moved)
            self.over = True
        self.seen = moved
        self._weigh()
        return moved

    def _weigh(self) -> None:
        """Weigh the gates by what each of them saves now."""
        saved = self.costs.saved(self.seen > 0)
        alpha = saved / saved.max() if self.told.cost_weights else saved.new_ones(saved.shape)
        self.alpha = alpha.to(self.before.dtype)

    def after_epoch(self, module: nn.Module, epoch: int) -> dict[str, Any]:
        """Measure the latency where it is time to; at the end, put the gates themselves in the place of the point at
        which the next gradient would have been taken."""
        import torch

        gates = self._gates(module)
        measured: dict[str, Any] = {}
        if self.told.target_latency is not None and (epoch % self.told.latency_every == 0 or epoch == self.epochs):
            measured["latency_ratio"] = self._ratio(module, self.before)
            self.over = measured["latency_ratio"] <= self.told.target_latency.amount
        if epoch == self.epochs and not self.over and self.told.force_target:
            self.before = self._forced(module)
        if self.over or epoch == self.epochs:
            with torch.no_grad():
                gates.copy_(self.before)
        is_open = self.before > 0
        told = {
            "open": int(is_open.sum()),
            "macs": round(self.macs.of(is_open)),
            self.costs.count: round(self.costs.of(is_open)),
            "kl": self.kl.item() / max(self.steps, 1),
            "gate_penalty": self.gate_penalty,
        }
        self.kl, self.steps, self.epoch = self.kl.new_zeros(()), 0, epoch
        return {**told, **measured}

    def _forced(self, module: nn.Module) -> Tensor:
        """Close gates until the budget is met, those first that are smallest for what they save."""
        import torch

        from kdtool.surgery.gates import close_until, minimal_gates

        values = self.before
        closable = (values > 0) & ~minimal_gates(values, self.costs)
        weighted = torch.where(closable, values / self.alpha.clamp_min(1e-12), torch.inf)
        order = weighted.argsort(stable=True)[: int(closable.sum())]
        if self.target is None:
            return self._forced_by_latency(module, values, order)
        return torch.where(close_until(self.costs, values > 0, order, self.target), values, 0)

    def _forced_by_latency(self, module: nn.Module, values: Tensor, order: Tensor) -> Tensor:
        """Bisect how many gates have to close, by a few measurements."""
        assert self.told.target_latency is not None
        low, high = 0, len(order)
        for _ in range(MEASUREMENTS):
            middle = (low + high) // 2
            if self._ratio(module, values.index_fill(0, order[:middle], 0)) <= self.told.target_latency.amount:
                high = middle
            else:
                low = middle
        return values.index_fill(0, order[:high], 0)

    def _ratio(self, module: nn.Module, values: Tensor) -> float:
        """Return the latency of the network with these gates."""
        import copy

        import torch

        assert self.measure is not None
        with torch.no_grad():
            trial = copy.deepcopy(module).cpu().float().eval()
            self._gates(trial).copy_(values)
        return self.measure(trial)

    def result(self, module: nn.Module) -> nn.Module:
        """Return the network with its gates folded into its weights."""
        from kdtool.surgery.gates import Gated

        assert isinstance(module, Gated)
        return module.folded()

    def state(self) -> dict[str, Any]:
        """Return what it remembers."""
        return {"before": self.before, "seen": self.seen, **{name: getattr(self, name) for name in REMEMBERED}}

    def load(self, state: dict[str, Any]) -> None:
        """Go back to what it remembered."""
        device = self.costs.sets.device
        self.before, self.seen = state["before"].to(device), state["seen"].to(device)
        for name in REMEMBERED:
            setattr(self, name, state[name])
        self._weigh()

    @staticmethod
    def _gates(module: nn.Module) -> nn.Parameter:
        from kdtool.surgery.gates import Gated

        assert isinstance(module, Gated)
        return module.gates
