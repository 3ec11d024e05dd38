"""What processes that train together exchange."""

from __future__ import annotations

import logging
import os
import sys

import pytest
import torch

from kdtool.errors import Error, UsageError
from kdtool.utils import processes
from kdtool.utils.processes import collected, count, decided, everyone, gathered, is_first, rank, summed, together
from kdtool.utils.progress import say


def test_a_process_alone_gets_what_it_gives(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    rows = torch.arange(3.0)
    with together():
        assert (count(), rank(), is_first()) == (1, 0, True)
        assert decided(lambda: 5) == 5
        assert collected("a") == ["a"]
        assert everyone(True)
        assert not everyone(False)
        assert gathered(rows) is rows
        assert summed(rows) is rows


def test_the_first_process_alone_speaks(monkeypatch, capsys, caplog):
    for number in ("0", "1"):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", number)
        say(f"from {number}")
        logging.getLogger("kdtool").warning("from %s", number)
    assert capsys.readouterr().err == "from 0\n"
    assert caplog.messages == ["from 0"]


def test_two_processes_exchange(in_processes):
    def check():
        assert count() == 1, "nobody has begun to work together"
        own = int(os.environ["RANK"])
        with together("cpu"):
            assert (count(), rank()) == (2, own)
            # The first has two rows, the second one.
            rows = torch.full((2 - own, 3), float(own))
            assert gathered(rows).tolist() == [[0.0] * 3, [0.0] * 3, [1.0] * 3]
            assert gathered(rows[:0]).shape == (0, 3)
            assert summed(torch.tensor([own + 1, 10])).tolist() == [3, 20]
            assert collected({"rank": own}) == [{"rank": 0}, {"rank": 1}]
            assert not everyone(own == 0)
            assert decided(lambda: (own, count())) == (0, 1), "the first process decides alone"
            with pytest.raises(UsageError, match="too small"):
                decided(_fail)
        assert count() == 1

    assert in_processes(check) == [0, 0]


def _fail():
    raise UsageError("too small")


def test_one_of_the_processes_that_fail_reports(in_processes, tmp_path):
    def check():
        with together("cpu"):
            (tmp_path / f"{rank()}").write_text(str(processes.first_to_fail()))
            everyone(True)  # the first process, which keeps the list, has to live until both have asked

    assert in_processes(check) == [0, 0]
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["False", "True"]


def test_a_launcher_that_does_not_say_where_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="WORLD_SIZE=2: the launcher did not set RANK"), together():
        pass


def test_accelerate_is_asked_for_by_its_extra(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with (
        pytest.raises(UsageError, match=r"2 processes: needs accelerate; pip install 'kdtool\[distributed\]'"),
        together(),
    ):
        pass


@pytest.mark.parametrize("way", ["DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG"])
def test_what_would_share_a_network_out_is_refused(monkeypatch, way):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(f"ACCELERATE_USE_{way}", "true")
    message = f"ACCELERATE_USE_{way}=true: kdtool trains with DistributedDataParallel alone; unset it"
    with pytest.raises(UsageError, match=message), together():
        pass


def test_a_process_that_is_gone_is_told_from_other_errors(monkeypatch):
    lost = RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4242")
    assert not processes.is_lost_process(lost), "there is but one process"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes.is_lost_process(lost)
    assert not processes.is_lost_process(RuntimeError("shape '[2]' is invalid for input of size 3"))
    assert not processes.is_lost_process(Error("no connection"))
