"""The number of threads is what the user says, else the fastest of those that were timed."""

import pytest
import torch

import kdtool.training.threads as module
from kdtool.training.threads import Threads, candidates, fixed_threads

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """A machine of 8 threads whose clock goes on by ``cost`` of the number of threads in each step."""

    class Machine:
        used, now = 8, 0.0
        cost = staticmethod(lambda threads: 1.0)

        def step(self, threads):
            self.now += self.cost(self.used)
            return threads.tick()

    fake = Machine()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(module.torch, "get_num_threads", lambda: fake.used)
    monkeypatch.setattr(module.torch, "set_num_threads", lambda count: setattr(fake, "used", count))
    monkeypatch.setattr(module.time, "perf_counter", lambda: fake.now)
    return fake


def test_candidates_double():
    assert candidates(1) == [1]
    assert candidates(2) == [1, 2]
    assert candidates(6) == [1, 2, 4, 6]
    assert candidates(8) == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("option", "variable", "expected"),
    [(None, None, None), (3, "5", 3), (None, "5", 5), (None, "4,2", 4), (None, "x", None), (None, "²", None)],
)
def test_the_option_comes_before_the_variable(monkeypatch, option, variable, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert fixed_threads(option) == expected


@pytest.mark.parametrize(
    ("cost", "best"),
    [
        (lambda count: 1 / count, 8),
        (lambda count: float(count), 1),
        (lambda count: abs(count - 4) + 1.0, 4),
        (lambda count: 1.0 - 0.01 * count, 1),  # too little to be more than noise
    ],
)
def test_the_fastest_is_used_and_the_old_number_comes_back(machine, cost, best):
    machine.cost = cost
    with Threads(None, CPU) as threads:
        assert machine.used == 1
        chosen = [machine.step(threads) for _ in range(40)]
        assert sum(chosen) == 1
        assert machine.used == threads.count == best
        assert threads.speedup == pytest.approx(cost(1) / cost(best))
        assert threads.state() == {"count": best}
    assert machine.used == 8


def test_the_first_step_with_each_number_does_not_count(machine):
    seen = []
    machine.cost = lambda count: seen.append(count) or (100.0 if seen.count(count) == 1 else 1 / count)
    with Threads(None, CPU) as threads:
        while not machine.step(threads):
            pass
        assert threads.count == 8


def test_two_that_are_close_are_timed_in_turn(machine):
    used = []
    # Another program takes half of the second core for the first 12 steps.
    machine.cost = lambda count: used.append(count) or {1: 1.0, 2: 1.1 if len(used) < 12 else 0.7}[count]
    machine.used = 2
    with Threads(None, CPU) as threads:
        while not machine.step(threads):
            pass
        assert threads.count == 2
        assert used == [1] * 4 + [2] * 4 + ([1] * 4 + [2] * 4) * 3


def test_two_that_are_far_apart_are_timed_once(machine):
    steps = 1
    machine.cost = lambda count: 1 / count
    machine.used = 2
    with Threads(None, CPU) as threads:
        while not machine.step(threads):
            steps += 1
        assert (threads.count, steps) == (2, 8)


def test_larger_numbers_are_not_tried_when_they_have_begun_to_lose(machine):
    tried = set()
    machine.cost = lambda count: tried.add(count) or {1: 1.0, 2: 2.0}[count]
    with Threads(None, CPU) as threads:
        while not machine.step(threads):
            pass
        assert (threads.count, tried) == (1, {1, 2})


def test_they_are_timed_again_when_the_load_changes(machine):
    machine.cost = lambda count: 1 / count
    with Threads(None, CPU) as threads:
        while not machine.step(threads):
            pass
        threads.end_epoch(0.125)
        threads.end_epoch(0.13)
        assert threads.decided
        threads.end_epoch(0.3)
        assert not threads.decided
        machine.cost = float  # others compute too
        while not machine.step(threads):
            pass
        assert threads.count == 1


def test_a_resumed_phase_goes_on_with_its_choice(machine):
    with Threads(None, CPU) as threads:
        threads.load({"count": 4})
        assert machine.used == 4
        assert not machine.step(threads)
    with Threads(None, CPU) as threads:
        threads.load({"count": 64})  # of another machine
        assert not threads.decided
    with Threads(2, CPU) as threads:
        threads.load({"count": 4})
        assert machine.used == 2


def test_on_an_accelerator_nothing_is_timed(machine):
    with Threads(None, torch.device("meta")) as threads:
        assert threads.decided
        assert machine.used == 8


@pytest.mark.parametrize(
    ("everywhere", "fixed", "choices"),
    [([8, 2], [0, 0], [1, 2]), ([8, 1], [0, 0], [1]), ([8, 8], [0, 4], [8])],
)
def test_processes_of_unlike_machines_ask_each_other_as_often(machine, monkeypatch, everywhere, fixed, choices):
    """Each would wait for the others in another place if it timed other numbers of threads, or none."""
    answers = iter([everywhere, fixed])
    monkeypatch.setattr(module, "collected", lambda own: next(answers))
    threads = Threads(None, CPU, shared=True)
    assert threads.choices == choices
    assert threads.decided == (len(choices) == 1)
    threads.load({"count": 4})
    assert threads.count == choices[0]  # not every process has so many
