"""The functions of the Python API: what they make of their arguments, and of what the caller has set of torch."""

import enum
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import kdtool
from kdtool.models.checkpoint import fingerprint
from kdtool.plugins.calls import public
from kdtool.training.options import BatchSize
from kdtool.utils.seeds import TOLD_AFTER_SECONDS


class Way(enum.StrEnum):
    HALVE = "halve"


class Other(str, enum.Enum):  # noqa: UP042  str() names the member
    NAME = "name"


@public
def given(*args, **options):
    """Return the arguments as they arrive."""
    return [*args, *options.values()]


def weights(checkpoint):
    return fingerprint(checkpoint.module.state_dict())


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (Way.HALVE, "halve"),
        (Other.NAME, "name"),
        (enum.IntEnum("Number", {"FOUR": 4}).FOUR, 4),
        ([np.int64(3), {"name": Other.NAME}], [3, {"name": "name"}]),
        ((np.float64(1.0),), (1.0,)),
        (True, True),
        (None, None),
    ],
)
def test_numbers_and_texts_arrive_as_plain_ones(value, plain):
    for arrived in given(value, option=value):
        assert arrived == plain
        assert type(arrived) is type(plain)
    if isinstance(plain, list):
        assert [type(item) for item in given(value)[0]] == [int, dict]


@pytest.mark.parametrize("text", ["auto", "auto:32", "32"])
def test_a_parsed_value_arrives_as_it_is(text):
    batch = BatchSize.parse(text)
    for arrived in given(batch, option=batch):
        assert arrived is batch


def test_a_checkpoint_made_with_numbers_of_numpy_can_be_read(teacher_path, tmp_path):
    (rate,) = np.logspace(-3, -3, 1)
    own = {"epochs": np.int64(1), "subset": np.float32(0.25), "lr": rate}
    kdtool.distill(teacher_path, refiner=Way.HALVE, **own, output=tmp_path / "s.pt")
    (entry,) = kdtool.load(tmp_path / "s.pt").history[1:]
    assert f"--refiner halve --epochs 1 --subset 0.25 --lr 0.001 -o {tmp_path}" in entry["line"]
    small = [kdtool.refine(teacher_path, seed=seed, output=tmp_path / "r.pt", force=True) for seed in (3, np.int64(3))]
    assert weights(small[0]) == weights(small[1])


@pytest.mark.parametrize(
    "context",
    [torch.no_grad, torch.inference_mode, lambda: torch.device("meta"), lambda: torch.autocast("cpu", torch.bfloat16)],
)
def test_what_the_caller_has_set_of_torch_changes_nothing(teacher_path, tmp_path, context):
    def made(name):
        return kdtool.distill(teacher_path, refiner="halve", epochs=1, subset=0.1, output=tmp_path / f"{name}.pt")

    plain = made("plain")
    with context():
        torch.set_default_dtype(torch.float64)
        try:
            within = made("within")
            assert torch.get_default_dtype() == torch.float64
        finally:
            torch.set_default_dtype(torch.float32)
    assert weights(within) == weights(plain)
    assert within.metrics == plain.metrics
    assert all(weight.requires_grad and not weight.is_inference() for weight in within.module.parameters())


def test_threads_wait_for_each_other(teacher_path, tmp_path):
    def made(seed):
        return kdtool.refine(teacher_path, seed=seed, output=tmp_path / f"{seed}.pt", force=True)

    alone = [weights(made(seed)) for seed in range(4)]
    state = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        assert [weights(small) for small in pool.map(made, range(4))] == alone
    assert torch.equal(torch.get_rng_state(), state)


def test_a_thread_that_waits_says_so(capsys):
    inside, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=public(lambda: inside.set() or go_on.wait(30)))
    thread.start()
    assert inside.wait(10)
    threading.Timer(TOLD_AFTER_SECONDS + 0.2, go_on.set).start()
    assert given(public(given)(3)) == [[3]]  # one within the other
    thread.join()
    assert capsys.readouterr().err.startswith("waits for what kdtool does in another thread; use processes")


def test_short_waits_are_not_told(capsys):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(public(time.sleep), [0.01] * 8))
    assert capsys.readouterr().err == ""


def test_a_process_that_began_meanwhile_does_not_wait():
    inside, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=public(lambda: inside.set() or go_on.wait(30)))
    thread.start()
    assert inside.wait(10)
    process = multiprocessing.get_context("fork").Process(target=given, args=(3,))
    process.start()
    process.join(20)
    code = process.exitcode
    process.kill()
    go_on.set()
    thread.join()
    assert code == 0


def test_a_name_that_is_no_file_name_is_refused_in_one_line():
    for call in (kdtool.load, kdtool.inspect, kdtool.evaluate):
        with pytest.raises(kdtool.UsageError, match=r"^a{40}: the name is too long for a file$"):
            call("a" * 300)
