"""The search of gated student search: its loss, the steps of the gates and the stopping rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Callback, Objective
from kdtool_distillers.proximal import ahead, closing_threshold, gradient_step, shrink

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Step
    from kdtool.surgery.gates import GateCosts
    from kdtool_distillers.gated_options import GateSearchOptions

STEPS_BETWEEN_CHECKS = 10
"""On an accelerator, where reading the cost waits for all queued work; on the CPU every step is checked."""
LARGEST_GATE = 2.0
"""Gates begin at 1."""
SAVED = ("k", "epoch", "over", "first", "rate")
"""The numbers that a resumed search continues with."""
MEASUREMENTS = 8
"""How often the latency is measured at most while gates are closed until it is met."""
LATENCY_NEAR = 0.03
"""How far below the budget a latency may be, as a fraction of it, to be taken without a further measurement."""


@dataclass(frozen=True)
class GateSearchLoss(Objective):
    """Match the teacher with the gated network: the loss of the search without its penalties."""

    options: GateSearchOptions

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch; the optimiser and the steps of the gates apply the penalties."""
        if self.options.search_loss == "ce":
            return step.cross_entropy()
        kl, target = self.divergence(step), self.options.kl_target
        # t**2 keeps the gradient the size it had at t = 1.
        return self.options.search_temperature**2 * (kl if target is None else (kl - target).abs())

    def uniform_loss(self, step: Step) -> Tensor:
        """Return the loss, KL or cross-entropy, of a student that gives all classes the same probability."""
        uniform = dataclasses.replace(step, student=step.student.detach() * 0)
        if self.options.search_loss == "ce":
            return uniform.cross_entropy()
        # With a uniform teacher the KL is 0, and the penalties, which are scaled by it, would vanish.
        return (self.options.search_temperature**2 * self.divergence(uniform)).clamp_min(1e-6)

    def divergence(self, step: Step) -> Tensor:
        """Return KL(teacher || student) at the temperature of the search, a mean over the batch, in nats."""
        from kdtool_distillers.kd import divergence

        temperature = self.options.search_temperature
        return divergence(step.student / temperature, step.teacher / temperature)


class GateSearch(Callback):
    """Move the gates by accelerated proximal steps until the budget is met.

    Gate j has the threshold lambda_2 * eta * alpha_j, where alpha_j = F_j / max F and F_j is what gate j alone saves
    while the others stay as they are. If lambda_2 is not given, the sum of all penalties starts at the loss of a
    student that gives all classes the same logits, and lambda_2 doubles in every epoch of the second half of the
    search. If eta is not given, a gate of the mean alpha that gets no gradient closes in half of the search.
    """

    keeps_last: ClassVar[bool] = True
    remedy: ClassVar[str] = "try a lower --search-lr, --search-clip or --gate-step"

    def __init__(
        self,
        options: GateSearchOptions,
        costs: GateCosts,
        macs: GateCosts,
        measure: Callable[[nn.Module], float] | None = None,
    ) -> None:
        """Prepare a search with these options.

        ``costs`` are what the budget counts, ``macs`` the multiply-accumulates, and ``measure`` returns the latency of
        a gated network as a fraction of its teacher's.
        """
        self.options, self.costs, self.macs, self.measure = options, costs, macs, measure
        self.objective = GateSearchLoss(options)
        self.target = None if options.target_latency is not None else options.budget[1].limit(costs.total)
        self.k = self.epoch = self.steps = 0

    def begin(self, module: nn.Module, steps: int, epochs: int) -> None:
        """Start from the gates as they are."""
        gates = self._gates(module)
        self.costs.to(gates.device)
        self.macs.to(gates.device)
        self.epochs, self.half = epochs, (epochs + 1) // 2
        self.check_every = 1 if gates.device.type == "cpu" else STEPS_BETWEEN_CHECKS
        self.before = self.checked = self.needed = self.above = gates.detach().clone()
        self.kl = gates.new_zeros(())
        self._update_alpha()
        self.closing = closing_threshold(steps * self.half)

    def _choose_rates(self, step: Step) -> None:
        """Choose lambda_2 and eta from the first batch, unless the options give them."""
        penalty, rate = self.options.gate_penalty, self.options.gate_lr
        self.first = penalty if penalty is not None else float(self.objective.uniform_loss(step) / self.alpha.sum())
        self.rate = rate if rate is not None else self.closing / (self.first * float(self.alpha.mean()))

    def parameters(self, module: nn.Module) -> list[nn.Parameter]:
        """Return the gates."""
        return [self._gates(module)]

    @property
    def gate_penalty(self) -> float:
        """Lambda_2 in this epoch."""
        doubled = 0 if self.options.gate_penalty is not None else max(0, self.epoch - self.half + 1)
        return float(self.first * 2.0**doubled)

    def after_step(self, module: nn.Module, step: Step) -> None:
        """Move the gates by one proximal step, and check the budget."""
        import torch

        from kdtool.surgery.gates import keep_last

        gates = self._gates(module)
        assert gates.grad is not None
        self.k += 1
        with torch.no_grad():
            if self.k == 1:
                self._choose_rates(step)
            self.kl += self.objective.divergence(step)
            self.steps += 1
            threshold = self.gate_penalty * self.rate * self.alpha
            z = gates - gradient_step(gates.grad, self.rate, self.options.gate_step)
            unclamped = z - threshold  # below 0 for gates that close: the lower, the less they are needed
            moved = keep_last(self._bounded(shrink(z, threshold)), self.before, unclamped, self.costs)
            self.needed = unclamped
            gates.grad = None
            if self.k % self.check_every == 0:
                moved = self._check_budget(moved, unclamped)
            gates.copy_(self._bounded(ahead(moved, self.before, self.k)))
            self.before = moved

    def _bounded(self, gates: Tensor) -> Tensor:
        """Return gates [gates] of at most `LARGEST_GATE`; the bound is a part of the proximal operator, a projection.

        A gate and the weight that it multiplies can trade their sizes for ever, until a deep network overflows.
        """
        return gates.clamp_max(LARGEST_GATE) if self.options.gate_step else gates

    def _check_budget(self, moved: Tensor, unclamped: Tensor) -> Tensor:
        """Return the gates after a step, and note whether they meet the budget.

        If they do, only as many of the gates that closed since the last check stay closed as the budget needs.
        """
        import torch

        from kdtool.surgery.gates import close_until

        if torch.equal(moved > 0, self.checked > 0):
            self.checked = moved
            return moved
        if self.target is not None and self.costs.of(moved > 0) <= self.target:
            closed = ((moved <= 0) & (self.checked > 0)).nonzero().flatten()
            order = closed[unclamped[closed].argsort(stable=True)]
            is_open = close_until(self.costs, (moved > 0) | (self.checked > 0), order, self.target)
            moved = torch.where(is_open & (moved <= 0), self.checked, moved)
            self.over = True
        self.checked = moved
        self._update_alpha()
        return moved

    def _update_alpha(self) -> None:
        """Set alpha [gates] to what each gate saves now, relative to the largest of them."""
        saved = self.costs.saved(self.checked > 0)
        alpha = saved / saved.max() if self.options.cost_weights else saved.new_ones(saved.shape)
        self.alpha = alpha.to(self.before.dtype)

    def after_epoch(self, module: nn.Module, epoch: int) -> dict[str, Any]:
        """Return what the epoch's log records; measure the latency if it is due.

        At the end of the search the parameter holds the gates x_k in place of the point y_(k+1) of the next gradient.
        """
        import torch

        gates = self._gates(module)
        measured, target = {}, self.options.target_latency
        if target is not None and (epoch % self.options.latency_every == 0 or epoch == self.epochs):
            measured["latency_ratio"] = self._latency_ratio(module, self.before)
            self.over = measured["latency_ratio"] <= target.amount
            if not self.over:
                self.above = self.before
            elif self.options.fill_target:
                self.before = self._reopened(module, measured["latency_ratio"])
        if epoch == self.epochs and not self.over and self.options.force_target:
            self.before = self._forced(module)
        if self.over or epoch == self.epochs:
            with torch.no_grad():
                gates.copy_(self.before)
        is_open = self.before > 0
        row = {
            "open": int(is_open.sum()),
            "macs": round(self.macs.of(is_open)),
            self.costs.count: round(self.costs.of(is_open)),
            "kl": self.kl.item() / max(self.steps, 1),
            "gate_penalty": self.gate_penalty,
        }
        self.kl, self.steps, self.epoch = self.kl.new_zeros(()), 0, epoch
        return {**row, **measured}

    def _forced(self, module: nn.Module) -> Tensor:
        """Return the gates with as many closed as the budget needs, first those with the smallest g_j / alpha_j."""
        import torch

        from kdtool.surgery.gates import close_until, minimal_gates

        values = self.before
        closable = (values > 0) & ~minimal_gates(values, self.costs)
        weighted = torch.where(closable, values / self.alpha.clamp_min(1e-12), torch.inf)
        order = weighted.argsort(stable=True)[: int(closable.sum())]
        if self.target is None:
            return self._forced_by_latency(module, values, order)
        return torch.where(close_until(self.costs, values > 0, order, self.target), values, 0)

    def _forced_by_latency(self, module: nn.Module, values: Tensor, order: Tensor, ratio: float = 0.0) -> Tensor:
        """Return the gates with as many closed, in this order, as the latency needs; bisect their number.

        ``ratio`` is the latency with all of them closed, if it is known.
        """
        assert self.options.target_latency is not None
        target = self.options.target_latency.amount
        low, high = 0, len(order)
        for _ in range(MEASUREMENTS):
            if high - low < 2 or (1 - LATENCY_NEAR) * target <= ratio <= target:
                break
            middle = (low + high) // 2
            measured = self._latency_ratio(module, values.index_fill(0, order[:middle], 0))
            if measured <= target:
                high, ratio = middle, measured
            else:
                low = middle
        return values.index_fill(0, order[:high], 0)

    def _reopened(self, module: nn.Module, ratio: float) -> Tensor:
        """Return the gates, with as many open again as the latency allows of those that closed since it was above.

        Those that are needed most open first. ``ratio`` is the latency as the gates are.
        """
        import torch

        closed = ((self.before <= 0) & (self.above > 0)).nonzero().flatten()
        order = closed[self.needed[closed].argsort(stable=True)]
        values = torch.where(self.before > 0, self.before, self.above)
        return self._forced_by_latency(module, values, order, ratio)

    def _latency_ratio(self, module: nn.Module, values: Tensor) -> float:
        """Return the latency of the network with these gates, as a fraction of the teacher's."""
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
        """Return what a resumed search continues with, as plain data and tensors."""
        return {
            "before": self.before,
            "seen": self.checked,
            "needed": self.needed,
            "above": self.above,
            **{name: getattr(self, name) for name in SAVED},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue with the state of an earlier search."""
        device = self.costs.sets.device
        self.before, self.checked = state["before"].to(device), state["seen"].to(device)
        self.needed, self.above = state["needed"].to(device), state["above"].to(device)
        for name in SAVED:
            setattr(self, name, state[name])
        self._update_alpha()

    @staticmethod
    def _gates(module: nn.Module) -> nn.Parameter:
        from kdtool.surgery.gates import Gated

        assert isinstance(module, Gated)
        return module.gates
