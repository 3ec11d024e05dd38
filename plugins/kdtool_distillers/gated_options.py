"""The options of gated student search that concern the search: its budget, its loss and its penalties."""

from __future__ import annotations

from kdtool import Budget, UsageError, option
from kdtool.plugins import Options, refuse_idle


class GateSearchOptions(Options):
    """Options of the gate search and its stopping rule."""

    target_macs: Budget | None = option(None, help="multiply-accumulates of the student: 0.3x of the teacher's, or 90M")
    target_params: Budget | None = option(None, help="parameters of the student: 0.3x of the teacher's, or 0.8M")
    target_latency: Budget | None = option(None, help="time in onnxruntime, as a fraction of the teacher's: 0.5x")
    closing: str = option(
        "gradual",
        choices=("gradual", "proximal"),
        help="how gates close: step by step, those first that matter least for what they cost, or by shrinking (the "
        "paper)",
    )
    search_epochs: int = option(10, minimum=1, help="epochs in which the search has to meet the budget")
    force_target: bool = option(
        True, help="if the search misses the budget, close the gates that matter least for what they save"
    )
    fill_target: bool = option(
        True, help="where the search goes below the budget, keep as many of the closed channels as still fit"
    )
    round_to: int = option(16, minimum=1, help="layers keep multiples of this many channels; 16 suits onnxruntime")
    search_loss: str = option(
        "kl", choices=("kl", "ce"), help="loss of the search: kl to the teacher, or ce to the labels (NP)"
    )
    search_temperature: float = option(4.0, above=0, help="temperature of the KL in the search")
    kl_target: float | None = option(
        None, minimum=0, help="value kl_0 of the KL to search for, in nats, by |KL - kl_0|; unset: as small as possible"
    )
    cost_weights: bool = option(True, help="penalise each gate by what it saves; off: all gates equally (alpha = 1)")
    stream_alpha: float | None = option(
        None,
        minimum=0,
        maximum=1,
        help="alpha of the gates of residual streams; 0: they close last; unset: with gradual 0, unless other layers "
        "would need less than an eighth of their channels, and with proximal what they save",
    )
    gate_penalty: float | None = option(
        None,
        above=0,
        help="lambda_2 of proximal; unset: small at first, doubled in every epoch of the second half of the search",
    )
    gate_lr: float | None = option(
        None,
        above=0,
        help="learning rate of the gates of proximal; unset: gates that the loss does not need close in half of the "
        "search",
    )
    weight_penalty: float = option(1e-4, minimum=0, help="lambda_1, the weight decay of the search")
    search_lr: float = option(0.01, above=0, help="learning rate of the weights in the search (sgd)")
    search_clip: float = option(
        50.0, minimum=0, help="largest norm of the gradient of the weights in the search; 0: no clipping"
    )
    gate_step: float = option(
        0.1,
        minimum=0,
        help="most that the gradient moves a gate of proximal in one step; 0: no limit, and gates may grow above 2",
    )
    latency_every: int = option(2, minimum=1, help="epochs of the search between two measurements of the latency")

    def __post_init__(self) -> None:
        """Check that there is exactly one budget, and that the options fit together.

        Raises:
            UsageError: there is none, there are several, the latency is no fraction of the teacher's, or an option
                belongs to another way of closing, another loss or another budget.
        """
        super().__post_init__()
        flags = [flag for flag, budget in self._targets() if budget is not None]
        if len(flags) > 1:
            raise UsageError(f"{flags[0]} and {flags[1]} are two budgets; give one")
        if not flags:
            raise UsageError("--method gated needs a budget: --target-macs 0.3x, --target-params or --target-latency")
        if self.target_latency is not None and not self.target_latency.relative:
            raise UsageError(f"--target-latency {self.target_latency}: give a fraction of the teacher's, such as 0.5x")
        if self.closing != "proximal":
            refuse_idle(self, ("gate_penalty", "gate_lr", "gate_step"), "--closing proximal, whose gates shrink")
        if self.search_loss != "kl":
            refuse_idle(self, ("kl_target", "search_temperature"), "--search-loss kl")
        if self.target_latency is None:
            refuse_idle(self, ("latency_every",), "--target-latency")

    def _targets(self) -> list[tuple[str, Budget | None]]:
        return [
            ("--target-macs", self.target_macs),
            ("--target-params", self.target_params),
            ("--target-latency", self.target_latency),
        ]

    @property
    def budget(self) -> tuple[str, Budget]:
        """The flag of the budget that is set, and the budget."""
        return next((flag, budget) for flag, budget in self._targets() if budget is not None)

    @property
    def count(self) -> str:
        """What the costs of gates count: ``parameters`` if the budget does, else ``macs``, also for a latency."""
        return "macs" if self.target_params is None else "parameters"
