"""The Python API: everything that the command line does, under the same names."""

from __future__ import annotations

from kdtool.commands.compare import compare
from kdtool.commands.distill import distill
from kdtool.commands.export import export
from kdtool.commands.inputs import load
from kdtool.commands.inspect import evaluate, inspect
from kdtool.commands.measure import measure
from kdtool.commands.models import networks
from kdtool.commands.new_plugin import new_plugin
from kdtool.commands.prune import prune
from kdtool.commands.refine import refine
from kdtool.commands.teacher import teacher
from kdtool.commands.trust import trust
from kdtool.compression.command import compress
from kdtool.reporting.page import report
from kdtool.reporting.watching import watch
from kdtool.study.runner import run_study

__all__ = [
    "compare",
    "compress",
    "distill",
    "evaluate",
    "export",
    "inspect",
    "load",
    "measure",
    "networks",
    "new_plugin",
    "prune",
    "refine",
    "report",
    "run_study",
    "teacher",
    "trust",
    "watch",
]
