"""The search with gates that stay 0 or 1 and close step by step, those first that matter least for what they cost."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool_distillers.gated_search import GateSearch
from kdtool_distillers.gradual import closing_order, need, running_mean, squared_effect

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Step

CLOSING = 0.75
"""The part of the search in which gates close; in the rest the weights recover."""
CLOSINGS = 64
"""How often gates close, at most; the scores of more steps are means of more images."""
SPARED = 0.125
"""The part of the channels that layers inside residual blocks keep at least for the streams to be spared by default."""
MEAN_STEPS = 50
"""About how many steps the running mean of the scores looks back."""


class GradualSearch(GateSearch):
    """Close gates along a cubic schedule of the cost, and let the weights recover in the last quarter of the search.

    Gates are 0 or 1. The score of gate j is the running mean of (g_j dL/dg_j)^2 over the steps; gates close in the
    order of score over alpha, in blocks of as many channels as a layer loses at once. For a latency the schedule is
    that of the MACs at which it is expected, estimated from what was measured.
    """

    remedy: ClassVar[str] = "try a lower --search-lr or --search-clip"
    saved: ClassVar[tuple[str, ...]] = (*GateSearch.saved, "expected", "settled")
    tensors: ClassVar[dict[str, str]] = {**GateSearch.tensors, "scores": "scores"}

    def begin(self, module: nn.Module, steps: int, epochs: int) -> None:
        """Start from the gates as they are, and find out whether the residual streams can be spared."""
        self.spares = False
        super().begin(module, steps, epochs)
        self.scores = self.before.new_zeros(self.before.shape)
        self.closing = max(1, math.ceil(CLOSING * steps * epochs))
        self.every = max(self.check_every, self.closing // CLOSINGS)
        # A latency is at first expected to fall like the MACs.
        self.expected = self.options.budget[1].amount * self.costs.total if self.target is None else self.target
        self.settled = False
        self.spares = self.options.stream_alpha is None and bool(self.stream.any()) and self._can_spare_streams()
        self._update_alpha(self.before > 0)

    def _can_spare_streams(self) -> bool:
        """Return whether the budget can be met with the streams whole and `SPARED` of the gates of all other sets.

        If not, a line says that the streams close like all others.
        """
        from kdtool.surgery.gates import minimal_gates

        kept = self.stream | minimal_gates(self.before, self.costs)
        for number in range(self.costs.set_count):
            members = (self.costs.sets == number).nonzero().flatten()
            kept[members[: math.ceil(SPARED * len(members))]] = True
        if self.costs.of(kept) <= self.expected:
            return True
        flag, budget = self.options.budget
        logging.getLogger("kdtool").warning(
            "%s %s: other layers would need less than an eighth of their channels, so the residual streams become "
            "narrower as well (--stream-alpha 0: only where nothing else is left)",
            *(flag, budget),
        )
        return False

    def _stream_alpha(self) -> float | None:
        """Return 0 if the streams are spared."""
        return 0.0 if self.spares else self.options.stream_alpha

    def after_step(self, module: nn.Module, step: Step) -> None:
        """Score the gates, and close as many as the schedule asks for."""
        import torch

        from kdtool.pruning import cubic_at

        gates = self._gates(module)
        assert gates.grad is not None
        with torch.no_grad():
            self._count_step(step)
            # What is closed keeps its last score: it says which gates to open again first.
            now = running_mean(self.scores, squared_effect(gates, gates.grad).float(), self.k, MEAN_STEPS)
            self.scores = torch.where(self.before > 0, now, self.scores)
            gates.grad = None
            if self.k <= self.closing and (self.k % self.every == 0 or self.k == self.closing):
                self._close(cubic_at(self.costs.total, self.expected, self.k / self.closing))
                gates.copy_(self.before)

    def _close(self, limit: float) -> None:
        """Close gates until the cost is within the limit, in MACs or parameters."""
        from kdtool.surgery.gates import close_until

        is_open = self.before > 0
        if self.costs.of(is_open) <= limit:
            return
        remaining = close_until(self.costs, is_open, self._closing_order(self.before), limit)
        self.before = self.before * remaining
        self.needed = need(self.scores, self.alpha)

    def _closing_order(self, values: Tensor) -> Tensor:
        """Return the gates that may close, first those with the smallest score over alpha, block by block."""
        from kdtool.surgery.gates import minimal_gates

        is_open = values > 0
        self._update_alpha(is_open)
        needed = need(self.scores, self.alpha)
        closable = is_open & ~minimal_gates(needed.masked_fill(~is_open, -1), self.costs)
        return closing_order(self.scores, self.alpha, closable, is_open, self.costs.sets, self.costs.blocks)

    def _end_epoch(self, module: nn.Module, epoch: int) -> dict[str, Any]:
        """Meet the budget when the gates have closed; measure the latency until then."""
        import torch

        settles = not self.settled and (self.k >= self.closing or epoch == self.epochs)
        logged: dict[str, Any] = {}
        if self.target is None and (settles or (not self.settled and epoch % self.options.latency_every == 0)):
            logged["latency_ratio"] = self._measured(module)
        if settles:
            self.settled = True
            ratio = logged.get("latency_ratio")
            if ratio is None or ratio > self.options.budget[1].amount:
                if self.options.force_target:
                    self.before = self._forced(module)
            elif self.options.fill_target:
                self.before = self._reopened(module, ratio)
            with torch.no_grad():
                self._gates(module).copy_(self.before)
        return logged

    def _measured(self, module: nn.Module) -> float:
        """Return the latency as a fraction of the teacher's, and expect the budget at the MACs that follow from it.

        The latency is taken for linear in the MACs, from the whole network (1, 1) to what is measured (m, r): the
        budget b is expected at 1 - (1 - m) (1 - b) / (1 - r).
        """
        budget = self.options.budget[1].amount
        ratio = self._latency_ratio(module, self.before)
        gone = 1 - self.costs.of(self.before > 0) / self.costs.total
        if ratio > budget:
            self.above = self.before
        if ratio < 1 and gone > 0:
            self.expected = self.costs.total * max(0.0, 1 - gone * (1 - budget) / (1 - ratio))
        return ratio
