"""The time in which `kdtool compress` proposes and measures all candidates of a ResNet-18 at 32 pixels.

Each budget is sized in a process of its own. Printed are the seconds by the clock, the CPU seconds (with those of child
processes), how many candidates met the budget, and which ladders were left out because the time was over. Goal: at most
120 s by the clock on 2 cores without other work, with no ladder left out. `--profile FILE` writes what cProfile saw.
"""

import argparse
import cProfile
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUDGETS = ("0.6x", "0.35x", "0.15x")
NETWORK = {"data": "digits", "image_size": 32, "in_channels": 3}


def computed():
    """Return the CPU seconds of this process and of its children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def propose(teacher, budget, profile):
    """Print what proposing within a latency took."""
    from kdtool.commands.inputs import as_teachers, data_for, load
    from kdtool.commands.outputs import entry_of
    from kdtool.compression.costs import scratch
    from kdtool.compression.options import BudgetOptions
    from kdtool.compression.proposals import propose
    from kdtool.plugins.registry import make
    from kdtool.training.options import Training
    from kdtool.training.run import Run

    parent, options, training = load(teacher), BudgetOptions(max_latency=budget), Training()
    data = data_for(parent, {})
    entry = entry_of("compress", "kd", parent, {}, Path("student.pt"), make("distillers", "kd"), training, data)
    profiler = cProfile.Profile()
    with scratch() as folder:
        teachers = as_teachers([parent], data.spec, {})
        run = Run(folder, data=data, training=training, parent=parent, entry=entry, teachers=teachers)
        started, before = time.perf_counter(), computed()
        if profile:
            profiler.enable()
        proposals = propose(run, parent.network, options, folder)
        profiler.disable()
        seconds, cpu = time.perf_counter() - started, computed() - before
    if profile:
        profiler.dump_stats(profile)
    left_out = [name for name, reason in proposals.refused.items() if "no time" in reason]
    print(json.dumps([seconds, cpu, len(proposals.candidates), left_out]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budgets", default=",".join(BUDGETS))
    parser.add_argument("--profile", default="")
    parser.add_argument("--teacher", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.teacher:
        return propose(given.teacher, given.budgets, given.profile)

    import kdtool

    with tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder, "teacher.pt")
        kdtool.teacher("timm:resnet18", stem="small", epochs=0, output=teacher, **NETWORK)
        for budget in given.budgets.split(","):
            command = [sys.executable, __file__, "--teacher", teacher, "--budgets", budget, "--profile", given.profile]
            lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            seconds, cpu, candidates, left_out = json.loads(lines.splitlines()[-1])
            text = f"{candidates} candidates, left out: {', '.join(left_out) or 'none'}"
            print(f"--max-latency {budget:6} {seconds:5.1f} s of the clock, {cpu:5.1f} CPU s  {text}", flush=True)


if __name__ == "__main__":
    main()
