"""The number of threads that compute on the CPU: what the user says, else the fastest of a few, by timing real steps.

The best number depends on the network, the batch, the machine and what else runs there, so that no constant is right.
"""

from __future__ import annotations

import os
import statistics
import time
from types import TracebackType

import torch

from kdtool.utils.processes import collected, decided

# Each number of threads is timed in this many steps, after one that is not counted: layers set themselves up in it.
TIMED = 3

# If the best number of threads and another one differ by less than this factor, three steps may be misled by other
# programs: the two are timed in turn this many times more.
CLOSE = 1.3
TURNS = 3

# A larger number has to be faster by this factor; otherwise the difference may be noise, and others use the cores.
WORTH = 1.05

# If a step takes this many times as long as it did, or as little, other programs came or went: it is timed again.
CHANGED = 1.5


def fixed_threads(option: int | None) -> int | None:
    """Return the number of threads that ``--threads`` or OMP_NUM_THREADS asks for, or None."""
    named = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if option is not None:
        return option
    return int(named) if named.isdecimal() and int(named) > 0 else None


def candidates(most: int) -> list[int]:
    """Return 1, 2, 4, ... and ``most``."""
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]


class Threads:
    """The threads of a phase. In the context torch uses as many as are best; `tick` is called after every step.

    The first steps are timed with each number of threads in turn. The choice is part of a phase's `state`: a resumed
    phase goes on with it.
    """

    def __init__(self, option: int | None, device: torch.device, timed: int = TIMED, *, shared: bool = False) -> None:
        """Take the number that the user asks for; without one, find it in ``timed`` steps each, on the CPU.

        If several processes take the same ``shared`` steps, the times of the first one count.
        """
        self.timed, self.shared = timed, shared
        self.before = self.most = torch.get_num_threads()
        fixed = fixed_threads(option) if device.type == "cpu" else self.before
        if shared and device.type == "cpu":  # machines may differ, and all processes have to ask each other as often
            self.most = min(collected(self.before))
            fixed = fixed or (self.before if any(collected(fixed or 0)) else None)
        self.choices = [fixed] if fixed else candidates(self.most)
        self.count = self.choices[0]
        self.times: dict[int, list[float]] = {}
        self.turns: list[int] | None = None
        self.left = timed + 1
        self.speedup = 1.0
        self.usual: float | None = None
        self.clock = 0.0
        self.decided = len(self.choices) == 1

    def __enter__(self) -> Threads:
        torch.set_num_threads(self.count)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        torch.set_num_threads(self.before)

    def start(self) -> None:
        """Start the clock of the next step."""
        self.clock = time.perf_counter()

    def tick(self) -> bool:
        """End a step and start the next one; return whether the number of threads was chosen in this call."""
        if self.decided:
            return False
        now = time.perf_counter()
        if self.left <= self.timed:
            self.times.setdefault(self.count, []).append(self._agreed(now - self.clock))
        self.clock = now
        self.left -= 1
        return not self.left and self._next()

    def _next(self) -> bool:
        """Go on with the next number of threads; return whether the choice is made instead."""
        best = self._best()
        if self.turns is None:
            position = self.choices.index(self.count)
            if position + 1 < len(self.choices) and best == self.count:
                self._use(self.choices[position + 1])
                return False
            self.turns = self._close_to(best)
        if self.turns:
            self._use(self.turns.pop())
            return False
        self.speedup = self._seconds(self.choices[0]) / self._seconds(best)
        self._use(best)
        self.decided = True
        return True

    def _close_to(self, best: int) -> list[int]:
        """Return what to time again: ``best`` and the number that comes next to it, in turn, if they are close."""
        others = sorted((self._seconds(count), count) for count in self.times if count != best)
        if not others or others[0][0] > CLOSE * self._seconds(best):
            return []
        return [others[0][1], best] * TURNS

    def end_epoch(self, seconds_per_step: float) -> None:
        """Time the next steps again if the mean time of an epoch's steps is far from the usual one."""
        if len(self.choices) == 1 or not self.decided:
            return
        seconds_per_step = self._agreed(seconds_per_step)
        if self.usual is not None and not 1 / CHANGED < seconds_per_step / self.usual < CHANGED:
            self.times, self.turns, self.decided, self.usual = {}, None, False, None
            self._use(self.choices[0])
        elif self.usual is None:
            self.usual = seconds_per_step

    @property
    def seconds(self) -> float:
        """The time of a step with the number of threads that was chosen."""
        return self._seconds(self.count)

    def state(self) -> dict[str, int]:
        """Return the choice, 0 if none was made yet."""
        return {"count": self.count if self.decided else 0}

    def load(self, state: dict[str, int]) -> None:
        """Go on with a choice, as far as every process has so many threads."""
        if len(self.choices) > 1 and 0 < state["count"] <= self.most:
            self.decided = True
            self._use(state["count"])

    def _agreed(self, seconds: float) -> float:
        return decided(lambda: seconds) if self.shared else seconds

    def _use(self, count: int) -> None:
        self.count, self.left = count, self.timed + 1
        torch.set_num_threads(count)

    def _seconds(self, count: int) -> float:
        return statistics.median(self.times[count])

    def _best(self) -> int:
        """Return the smallest number of threads that no larger one beats by `WORTH`."""
        best = self.choices[0]
        for count in self.choices[1:]:
            if count in self.times and self._seconds(best) > WORTH * self._seconds(count):
                best = count
        return best
