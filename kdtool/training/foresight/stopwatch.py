"""A few timed steps of a phase, in the loop that will train it."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdtool.data.splits import Data
from kdtool.training.callback import Callback
from kdtool.training.engine import engine_for
from kdtool.training.evaluate import VALIDATION_BATCH, images_for_a_loss
from kdtool.training.foresight.forecast import NOTHING, Cost
from kdtool.training.frozen_network import FrozenNetwork
from kdtool.training.loop import Loop
from kdtool.training.output_cache import Cache, CachedArray
from kdtool.training.plan import FitPlan
from kdtool.training.two_views import TwoViews
from kdtool.utils.processes import count, decided

if TYPE_CHECKING:
    from kdtool.training.step import Step

# The first steps set layers up. Then come enough for a median, and no more once they took long by themselves, or
# beside the phase that they stand for.
WARM_UP, FEWEST, MOST = 2, 8, 60
SECONDS = 1.0
SHARE = 0.02

# More validation images than this are not run; those of small data sets are.
VALIDATED = 4 * VALIDATION_BATCH


def now(device: torch.device | None = None) -> Cost:
    """Return the clock, after what the device still had to do."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return Cost(time.perf_counter(), time.process_time())


@dataclass(frozen=True)
class Timing:
    """What the parts of a phase cost."""

    step: Cost
    """A step in which the frozen networks run."""
    frozen: Cost
    """The part of it in which they run."""
    validation: Cost
    """The end of an epoch."""
    kept_in: int
    """In how many epochs the frozen networks run before their outputs can be read back; 0: in all."""
    steps: int
    """How many steps were timed."""
    state_bytes: int
    cache_bytes: int
    setup: Cost = NOTHING
    """What comes before the first step."""

    def epochs(self, count: int, steps: int) -> Cost:
        """Return the cost of ``count`` epochs of ``steps`` steps."""
        running = min(count, self.kept_in) if self.kept_in else count
        own = (self.step - self.frozen) * (count * steps)
        return self.setup + own + self.frozen * (running * steps) + self.validation * count


class Stopwatch(Callback):
    """Times the steps of a phase and ends it after a few of them; of several processes the first one ends it."""

    reads_step = False
    recordable = True

    def __init__(self, device: torch.device) -> None:
        """Time on ``device``."""
        self.device, self.frozen = device, Cost()
        self.times: dict[int, list[tuple[Cost, Cost]]] = defaultdict(list)
        """The costs of steps and of the frozen networks in them, by the number of threads."""
        self.decided: Callable[[], bool] = lambda: True
        self.last, self.last_frozen, self.count, self.first, self.total = now(), Cost(), 0, now(), 0

    def begin(self, module: nn.Module, steps: int, epochs: int) -> None:
        """Start the clock."""
        self.total = steps * epochs
        self.last = self.first = now(self.device)

    def watch(self, network: FrozenNetwork) -> None:
        """Add up what a frozen network costs."""
        run = network.run

        def timed(*arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
            started = now(self.device)
            result = run(*arguments)
            self.frozen += now(self.device) - started
            return result

        vars(network)["run"] = timed

    def after_step(self, module: nn.Module, step: Step) -> None:
        """Take the time of the step, and end the phase if enough is known."""
        moment = now(self.device)
        if self.count >= WARM_UP:
            self.times[torch.get_num_threads()].append((moment - self.last, self.frozen - self.last_frozen))
        self.last, self.last_frozen, self.count = moment, self.frozen, self.count + 1
        elapsed = (moment - self.first).seconds
        long = elapsed > SECONDS or self.count > SHARE * self.total
        enough = self.count >= WARM_UP + FEWEST and (long or self.count >= MOST)
        self.over = enough and (self.decided() or self.count >= MOST or elapsed > 5 * SECONDS)
        if count() > 1:
            self.over = decided(lambda: self.over)
            self.last = now(self.device)

    def median(self) -> tuple[Cost, Cost]:
        """Return the median cost of a step with the number of threads that is fastest, and of its frozen networks."""
        steps = min(self.times.values(), key=lambda times: statistics.median(time.seconds for time, _ in times))
        return _median([time for time, _ in steps]), _median([frozen for _, frozen in steps])


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.seconds for cost in costs), statistics.median(cost.cpu_seconds for cost in costs)
    )


class _NoStore:
    """Keeps nothing of a phase, but knows how large its state is and when its first epoch ended."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.bytes, self.ended = device, 0, Cost()

    def load(self) -> None:
        """Return no state."""

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Measure the state."""
        self.bytes = bytes_of(state())

    def log(self, row: dict[str, Any]) -> None:
        """Take the time."""
        self.ended = now(self.device)


class _NoCache(Cache):
    """A cache that only counts what would be kept."""

    def __init__(self) -> None:
        super().__init__(Path(), 0)
        self.bytes: dict[str, int] = {}

    def ready(self, name: str) -> bool:
        return False

    def create(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> CachedArray | None:
        self.bytes[name] = torch.Size(shape).numel() * dtype.itemsize
        return None


def time_phase(plan: FitPlan, module: nn.Module, data: Data, callbacks: Sequence[Callback]) -> Timing:
    """Return the costs of a phase's parts; ``module``, the student's, is left after a few steps."""
    training, began = plan.training, now()
    short = dataclasses.replace(data, val=data.val.first(VALIDATED))
    engine = engine_for(training, training.batch_size, *plan.networks)
    cache = _NoCache() if training.cache != "off" else None
    train, val = plan.batches(short, engine, cache)
    parts = [train.weak, train.strong] if isinstance(train, TwoViews) else [train]
    watch, store = Stopwatch(engine.device), _NoStore(engine.device)
    for network in {id(part): part for batch in parts for part in (batch.teacher, batch.student) if part}.values():
        watch.watch(network)
    loop = Loop(plan.student_module(module), plan, train, val, engine, store, [*callbacks, watch])
    watch.decided = lambda: loop.threads.decided
    setup = now() - began
    loop.run()
    if not watch.times:  # fewer steps than the warm-up has
        watch.times[0].append(((watch.last - watch.first) * (1 / max(1, watch.count)), Cost()))
    step, frozen = watch.median()
    images = len(data.val) if plan.validates == "accuracy" else len(images_for_a_loss(len(data.val), len(train)))
    validation = (store.ended - watch.last) * (images / min(images, len(short.val)))
    of_train = sum(size for name, size in (cache.bytes if cache else {}).items() if f"-{data.val.name}-" not in name)
    views = 0
    if of_train:
        views = max(1, training.recurring_views) if train.split.augmented else 1
    kept = min(of_train * max(1, views), int(training.cache_limit * 1e9))
    whole = of_train * views <= training.cache_limit * 1e9
    steps = sum(map(len, watch.times.values()))
    return Timing(step, frozen, validation, views if whole else 0, steps, store.bytes, kept, setup)


def bytes_of(value: Any) -> int:
    """Return the size of all tensors in nested plain data."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(bytes_of, value.values()))
    return sum(map(bytes_of, value)) if isinstance(value, list | tuple) else 0
