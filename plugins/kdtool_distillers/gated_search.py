"""The search of gated student search: what all ways of closing gates share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Callback
from kdtool.utils import progress_bar
from kdtool_distillers.gated_loss import GateSearchLoss

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Step
    from kdtool.surgery.gates import GateCosts
    from kdtool_distillers.gated_options import GateSearchOptions

STEPS_BETWEEN_CHECKS = 10
"""On an accelerator, where reading the cost waits for all queued work; on the CPU every step is checked."""
MEASUREMENTS = 8
"""How often the latency is measured at most while gates are closed until it is met."""
LATENCY_NEAR = 0.03
"""How far below the budget a latency may be, as a fraction of it, to be taken without a further measurement."""


class GateSearch(Callback):
    """Close gates until the budget is met.

    Gate j has the relative cost alpha_j = F_j / max F, where F_j is what gate j alone saves while the others stay as
    they are. The gates of the residual stream can have an alpha of their own.
    """

    keeps_last: ClassVar[bool] = True
    saved: ClassVar[tuple[str, ...]] = ("k", "epoch", "over")
    """The numbers that a resumed search continues with."""
    tensors: ClassVar[dict[str, str]] = {"before": "before", "needed": "needed", "above": "above"}
    """The tensors [gates] that a resumed search continues with: the attribute by the name in the saved state."""

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
        self.begun = False

    def begin(self, module: nn.Module, steps: int, epochs: int) -> None:
        """Start from the gates as they are."""
        self.begun = True
        gates = self._gates(module)
        self.costs.to(gates.device)
        self.macs.to(gates.device)
        self.epochs = epochs
        self.check_every = 1 if gates.device.type == "cpu" else STEPS_BETWEEN_CHECKS
        self.before = self.needed = self.above = gates.detach().clone()
        self.stream: Tensor = module.places.in_stream.to(gates.device)  # type: ignore[union-attr,operator,assignment]
        self.kl = gates.new_zeros(())
        self._update_alpha(gates.detach() > 0)

    def parameters(self, module: nn.Module) -> list[nn.Parameter]:
        """Return the gates."""
        return [self._gates(module)]

    def _count_step(self, step: Step) -> None:
        """Count a step, and its KL for the log."""
        self.k += 1
        self.kl += self.objective.divergence(step).detach()
        self.steps += 1

    def _update_alpha(self, is_open: Tensor) -> None:
        """Set alpha [gates] to what each gate saves now, relative to the largest of them."""
        saved = self.costs.saved(is_open)
        alpha = saved / saved.max() if self.options.cost_weights else saved.new_ones(saved.shape)
        if (of_stream := self._stream_alpha()) is not None:
            alpha = alpha.masked_fill(self.stream, of_stream)
        self.alpha = alpha.to(self.before.dtype)

    def _stream_alpha(self) -> float | None:
        """Return the alpha of the gates of residual streams; None if it is what they save, like that of all others."""
        return self.options.stream_alpha

    def after_epoch(self, module: nn.Module, epoch: int) -> dict[str, Any]:
        """Return what the epoch's log records; measure the latency if it is due.

        At the end of the search the parameter holds the gates ``before``.
        """
        import torch

        measured = self._end_epoch(module, epoch)
        if self.over or epoch == self.epochs:
            with torch.no_grad():
                self._gates(module).copy_(self.before)
        is_open = self.before > 0
        row = {
            "open": int(is_open.sum()),
            "macs": round(self.macs.of(is_open)),
            self.costs.count: round(self.costs.of(is_open)),
            "kl": self.kl.item() / max(self.steps, 1),
        }
        self.kl, self.steps, self.epoch = self.kl.new_zeros(()), 0, epoch
        return {**row, **measured}

    @abstractmethod
    def _end_epoch(self, module: nn.Module, epoch: int) -> dict[str, Any]:
        """Close or open gates after an epoch where this is due, and return further numbers for the epoch's log."""

    @abstractmethod
    def _closing_order(self, values: Tensor) -> Tensor:
        """Return the indices of the open gates [gates] that may close, those to close first at the beginning."""

    def _forced(self, module: nn.Module) -> Tensor:
        """Return the gates with as many closed as the budget needs."""
        import torch

        from kdtool.surgery.gates import close_until

        values = self.before
        order = self._closing_order(values)
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
        with progress_bar("latency", MEASUREMENTS) as advance:
            for _ in range(MEASUREMENTS):
                if high - low < 2 or (1 - LATENCY_NEAR) * target <= ratio <= target:
                    break
                middle = (low + high) // 2
                gates = values.index_fill(0, order[:middle], 0)
                measured = self._latency_ratio(module, gates)
                if measured <= target:  # of several near the budget those that were measured too fast are taken
                    measured = (measured + self._latency_ratio(module, gates)) / 2
                if measured <= target:
                    high, ratio = middle, measured
                else:
                    low = middle
                advance()
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
        tensors = {key: getattr(self, name) for key, name in self.tensors.items()}
        return {**tensors, **{name: getattr(self, name) for name in self.saved}}

    def load(self, state: dict[str, Any]) -> None:
        """Continue with the state of an earlier search."""
        device = self.costs.sets.device
        for key, name in self.tensors.items():
            setattr(self, name, state[key].to(device))
        for name in self.saved:
            setattr(self, name, state[name])

    @staticmethod
    def _gates(module: nn.Module) -> nn.Parameter:
        from kdtool.surgery.gates import Gated

        assert isinstance(module, Gated)
        return module.gates
