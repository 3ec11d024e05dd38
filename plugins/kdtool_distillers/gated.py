"""Search for better students to learn distilled knowledge (Gu and Tresp, 2020, arXiv:2001.11612)."""

from __future__ import annotations

import logging
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Distiller, Exporter, LossDistiller, UsageError, nested, option
from kdtool.utils import decided
from kdtool_distillers.gated_gradual import GradualSearch
from kdtool_distillers.gated_loss import GateSearchLoss
from kdtool_distillers.gated_options import GateSearchOptions
from kdtool_distillers.gated_proximal import ProximalSearch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from kdtool import Network, Run
    from kdtool.exporting import RelativeLatency
    from kdtool.surgery.gates import GateCosts


# How far below its budget a student is without a word: of MACs and parameters, and of a latency.
NEAR = (0.02, 0.05)


class Gated(GateSearchOptions, Distiller):
    """Search the teacher for the student that learns from it best within a budget, then distil (Gu and Tresp, 2020).

    Every channel is multiplied by a gate g_j >= 0 wherever it is read. In a DenseNet each connection (the channels of
    one layer that another layer reads) has its own gates. Weights w start from the teacher's and are trained by SGD on
    KL_tau(teacher || gated) + lambda_1 / 2 ||w||^2 while gates close, all of which are 1 at first. Gate j has the
    relative cost alpha_j = F_j / max F, where F_j are the MACs that gate j alone saves, recomputed when other gates
    close (or the parameters, if the budget counts parameters).

    --closing gradual: gates stay 0 or 1. They close in the order of s_j / alpha_j, where s_j is the running mean of
    (g_j dKL/dg_j)^2 over the steps (Molchanov et al., 2019, arXiv:1906.10771), so that after the part p of the first
    three quarters of the search the cost is at most budget + (whole - budget) (1 - p)^3 (Zhu and Gupta, 2017,
    arXiv:1710.01878). In the last quarter the weights recover. Residual streams are spared where they can be.

    --closing proximal, the paper's: gates are penalised by lambda_2 sum_j alpha_j |g_j| and move by accelerated
    proximal steps: with eta the learning rate of the gates,

        x_k = max(y_k - eta dKL/dg(y_k) - lambda_2 eta alpha, 0),   y_k = max(x_(k-1) + mu (x_(k-1) - x_(k-2)), 0),

    mu = (k - 2) / (k + 1). The search ends as soon as the budget is met. lambda_1 is the weight decay of SGD; the paper
    writes its term without the half.

    Then the closed channels are removed, the open gates are folded into the weights they multiply, the weights before
    batch-norms are scaled to the size of the teacher's (which changes no output), and the student is distilled with the
    objective.
    """

    fits: ClassVar[str] = "Fits a budget of MACs, parameters or latency: it finds which channels the teacher needs."
    makes_student: ClassVar[bool] = True

    init: str = option(
        "inherit", choices=("inherit", "fresh"), help="weights to distil from: those of the search, or fresh ones"
    )
    objective: LossDistiller = nested(
        "distillers", "kd", help="distiller whose loss is used after the search", temperature=4.0, alpha=0.9
    )
    exporter: Exporter = nested("exporters", "onnx", help="exporter that measures the latency")

    @classmethod
    def options_within(
        cls, teacher: Network, cost: str, share: float, *, epochs: int, exporter: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Return a budget, and a search of as many epochs as the distillation has."""
        from kdtool.pruning import round_to

        search = {"search_epochs": max(epochs, 2), "round_to": round_to(teacher)}
        search |= {"latency_every": 1} if cost == "latency" else {}
        return {f"target_{cost}": f"{share:.4f}x", **search, "exporter": dict(exporter)}

    @classmethod
    def check_student(cls, *, named: bool, refined: bool) -> None:
        """Check that no student is given, since the search makes it.

        Raises:
            UsageError: a student or a refiner is given.
        """
        if named or refined:
            raise UsageError(
                f"--{'student' if named else 'refiner'}: gated searches its student in the teacher; leave it out"
            )

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Search the gates, remove what is closed, distil the student and return it."""
        from kdtool.exporting import RelativeLatency
        from kdtool.surgery.gates import GateCosts, gate_channels, scaled_like, with_fresh_weights
        from kdtool.training import recalibrate_batchnorm

        if run.training.precision == "fp16":
            raise UsageError("--precision fp16: it scales the loss and so the gradients of the gates; use bf16 or fp32")
        gated = gate_channels(teacher)
        costs, macs = (
            GateCosts(gated.module, teacher.architecture.input, count, self.round_to)  # type: ignore[arg-type]
            for count in (self.count, "macs")
        )
        self._check_budget(costs, teacher)
        latency = RelativeLatency(self.exporter, teacher)
        with_gates, needed = self._search(run, latency, gated, costs, macs)
        removed, kept = self._removed(with_gates, costs, needed)
        # Gates shrink together, so the weights they are folded into would be too small; and in a short search gates
        # move faster than the statistics of batch-norms can follow.
        searched = recalibrate_batchnorm(run, scaled_like(removed, teacher))
        ratio = self._latency_ratio(searched, latency)
        self._record(run, with_gates, kept, costs, ratio)
        run.keep("teacher", teacher, taught_by="labels", latency_ratio=None if ratio is None else 1.0)
        run.keep("searched", searched, taught_by="teacher", latency_ratio=ratio)
        start = searched if self.init == "inherit" else with_fresh_weights(searched, run.training.seed)
        distilled = run.fit("distil", start, teacher=teacher, objective=self.objective).network
        run.keep("student", distilled, taught_by="teacher", latency_ratio=ratio)
        return distilled

    def _check_budget(self, costs: GateCosts, teacher: Network) -> None:
        """Check before the search that the budget can be met and, if it is a latency, measured."""
        from kdtool.exporting import check_measurable
        from kdtool.surgery.gates import check_budget

        flag, budget = self.budget
        if self.target_latency is None:
            check_budget(costs, budget, flag, teacher.architecture.spec)
        elif not getattr(self.exporter, "latency", False):
            raise UsageError(f"{flag}: needs an exporter that measures it; leave out --no-latency")
        else:
            check_measurable(self.exporter)

    def _search(
        self, run: Run, latency: RelativeLatency, gated: Network, costs: GateCosts, macs: GateCosts
    ) -> tuple[Network, Tensor]:
        """Train the network with its gates until the budget is met, and return it with its gates.

        The tensor [gates] is larger for gates that the last step needed more.
        """
        options = GateSearchOptions(**{info.name: getattr(self, info.name) for info in GateSearchOptions.describe()})
        measure = partial(self._latency_of_gated, latency, costs) if self.target_latency is not None else None
        search_run = run.with_training(
            epochs=self.search_epochs,
            optimizer="sgd",
            lr=self.search_lr,
            schedule="constant",
            clip=self.search_clip or None,
            weight_decay=self.weight_penalty,  # the gradient of lambda_1 / 2 ||w||^2
        )
        closing = GradualSearch if self.closing == "gradual" else ProximalSearch
        search = closing(options, costs, macs, measure)
        loss = GateSearchLoss(options)
        fit = search_run.fit("search", gated, teacher=latency.whole, objective=loss, callbacks=[search])
        return fit.network, search.needed.cpu()

    def _latency_of_gated(self, latency: RelativeLatency, costs: GateCosts, module: nn.Module) -> float:
        """Return the latency of a gated network without its closed gates, as a fraction of the teacher's."""
        from kdtool import Network

        return latency.of(self._removed(Network(latency.whole.architecture, module), costs)[0])

    def _removed(self, gated: Network, costs: GateCosts, needed: Tensor | None = None) -> tuple[Network, Tensor]:
        """Return a gated network without its closed channels, and a mask [gates] of the gates that are kept.

        With ``needed`` [gates] as many closed gates are kept as the budget allows; single open ones may close for them,
        in place.
        """
        import torch

        from kdtool.surgery.gates import fill_up, remove_closed

        is_open = gated.module.get_parameter("gates").detach() > 0
        kept = costs.kept(is_open.to(costs.sets.device))
        if needed is not None and self.fill_target and self.target_latency is None:
            limit = self.budget[1].limit(costs.total)
            kept = fill_up(costs, kept, needed.to(kept.device), limit)
            with torch.no_grad():
                gated.module.get_parameter("gates").mul_(kept)
        return remove_closed(gated, kept.cpu()), kept.cpu()

    def _latency_ratio(self, network: Network, latency: RelativeLatency) -> float | None:
        """Return the latency of a network as a fraction of the teacher's, or None if the exporter measures none."""
        if not getattr(self.exporter, "latency", True):
            return None
        return (
            latency.of(network) if self.exporter.suffix == ".onnx" else decided(partial(self._timed, network, latency))
        )

    def _timed(self, network: Network, latency: RelativeLatency) -> float | None:
        """Return the same from what an exporter of files that onnxruntime does not run measures itself."""
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / f"student{self.exporter.suffix}"
            measured = self.exporter.export(network, file, metadata={}, teacher=latency.whole).get("latency")
        return None if measured is None else float(measured["ratio"])

    def _record(self, run: Run, gated: Network, kept: Tensor, costs: GateCosts, ratio: float | None) -> None:
        """Record in the history what the search reached, warn if it missed the budget, and draw its charts."""
        from kdtool.plotting import draw_gates, draw_search
        from kdtool.surgery.gates import gate_map

        flag, budget = self.budget
        total = 1 if self.target_latency is not None else costs.total
        size = costs.cpu().of_kept(kept) if self.target_latency is None else ratio or 0.0
        reached = {
            "of": flag.removeprefix("--target-").replace("params", "parameters").replace("macs", "MACs"),
            "asked": 1 - budget.limit(total) / total,
            "removed": round(1 - size / total, 4),
        }
        if not budget.reached(size, total):
            more = "raise --gate-penalty, or " if self.closing == "proximal" else "or "
            missed = (
                f"{flag} {budget} was not met in {self.search_epochs} epochs of search; allow more --search-epochs, "
                f"{more}close the gates that matter least with --force-target"
            )
            if self.target_latency is not None and self.force_target:
                missed = (
                    f"{flag} {budget} was not met: with the channels that have to stay, the student takes {size:.2f}x; "
                    "the time of this network is not in its widths: allow more, or drop blocks (--method depth)"
                )
            reached["missed"] = missed
            logging.getLogger("kdtool").warning("%s", missed)
        elif self.fill_target and size < (1 - NEAR[self.target_latency is not None]) * budget.limit(total):
            share = size / budget.limit(total)
            logging.getLogger("kdtool").warning(
                "%s %s: the student takes %.0f %% of it; no more channels fit, of which layers keep multiples of %d "
                "(--round-to)",
                *(flag, budget, 100 * share, self.round_to),
            )
        gates = gate_map(gated.module, kept)  # type: ignore[arg-type]
        key = "latency_ratio" if self.target_latency is not None else self.count
        keys = dict.fromkeys(("epoch", "open", "macs", key, "kl"))
        search = [{name: row[name] for name in keys if name in row} for row in run.epochs("search")]
        run.record(reached=reached, gates=gates, search=search)
        title = f"{gated.architecture.spec}: {100 * (1 - size / total):.1f} % of the {reached['of']} removed"
        draw_gates(gates, run.directory / "gates.svg", title)
        draw_search(search, run.directory / "search.svg", (key, budget.limit(total)), title)
