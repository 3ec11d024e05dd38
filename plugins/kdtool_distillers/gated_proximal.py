"""The search with gates that shrink, as Gu and Tresp (2020, arXiv:2001.11612) do it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kdtool_distillers.gated_search import GateSearch
from kdtool_distillers.gradual import need
from kdtool_distillers.proximal import ahead, closing_threshold, gradient_step, shrink

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Step

LARGEST_GATE = 2.0
"""Gates begin at 1."""


class ProximalSearch(GateSearch):
    """Move the gates by accelerated proximal steps until the budget is met.

    Gate j has the threshold lambda_2 * eta * alpha_j. If lambda_2 is not given, the sum of all penalties starts at the
    loss of a student that gives all classes the same logits, and lambda_2 doubles in every epoch of the second half of
    the search. If eta is not given, a gate of the mean alpha that gets no gradient closes in half of the search.
    """

    remedy: ClassVar[str] = "try a lower --search-lr, --search-clip or --gate-step"
    saved: ClassVar[tuple[str, ...]] = (*GateSearch.saved, "first", "rate")
    tensors: ClassVar[dict[str, str]] = {**GateSearch.tensors, "seen": "checked"}

    def begin(self, module: nn.Module, steps: int, epochs: int) -> None:
        """Start from the gates as they are."""
        super().begin(module, steps, epochs)
        self.half = (epochs + 1) // 2
        self.checked = self.before
        self.closing = closing_threshold(steps * self.half)

    def _choose_rates(self, step: Step) -> None:
        """Choose lambda_2 and eta from the first batch, unless the options give them."""
        penalty, rate = self.options.gate_penalty, self.options.gate_lr
        self.first = penalty if penalty is not None else float(self.objective.uniform_loss(step) / self.alpha.sum())
        self.rate = rate if rate is not None else self.closing / (self.first * float(self.alpha.mean()))

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
        with torch.no_grad():
            self._count_step(step)
            if self.k == 1:
                self._choose_rates(step)
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
        self._update_alpha(moved > 0)
        return moved

    def _end_epoch(self, module: nn.Module, epoch: int) -> dict[str, Any]:
        """Measure the latency if it is due, and close gates if the search ends without its budget."""
        logged: dict[str, Any] = {"gate_penalty": self.gate_penalty}
        target = self.options.target_latency
        if target is not None and (epoch % self.options.latency_every == 0 or epoch == self.epochs):
            logged["latency_ratio"] = self._latency_ratio(module, self.before)
            self.over = logged["latency_ratio"] <= target.amount
            if not self.over:
                self.above = self.before
            elif self.options.fill_target:
                self.before = self._reopened(module, logged["latency_ratio"])
        if epoch == self.epochs and not self.over and self.options.force_target:
            self.before = self._forced(module)
        return logged

    def _closing_order(self, values: Tensor) -> Tensor:
        """Return the gates that may close, first those with the smallest g_j / alpha_j."""
        import torch

        from kdtool.surgery.gates import minimal_gates

        closable = (values > 0) & ~minimal_gates(values, self.costs)
        weighted = torch.where(closable, need(values, self.alpha), torch.inf)
        return weighted.argsort(stable=True)[: int(closable.sum())]

    def load(self, state: dict[str, Any]) -> None:
        """Continue with the state of an earlier search."""
        super().load(state)
        if self.begun:  # a finished search, which has no further step that reads alpha, does not begin again
            self._update_alpha(self.checked > 0)
