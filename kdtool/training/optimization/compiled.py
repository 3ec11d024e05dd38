"""Compile a student for the steps of a phase (``torch.compile``), where that is possible."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from kdtool.errors import first_line
from kdtool.utils.progress import say_once
from kdtool.utils.seeds import forked

if TYPE_CHECKING:
    from kdtool.training.engine import Engine
    from kdtool.training.student import StudentModule

NOISY = ("torch._dynamo", "torch._inductor", "torch.utils.cpp_extension")
"""The loggers of the compiler."""


@contextlib.contextmanager
def compiling(student: StudentModule, engine: Engine, shape: tuple[int, ...]) -> Iterator[None]:
    """Run the student compiled while the block runs; where that is not possible, one line says why.

    ``shape`` is that of the images of a pass, [batch, channels, height, width]. A copy of the student takes a step
    before, since the compiler does its work, and fails, at the first one.
    """
    reason = _why_not(student) or _failure(student, engine, shape)
    if reason is not None:
        say_once(f"--compile: {reason}; trains without it")
        yield
        return
    plain = student.forward
    student.forward = torch.compile(student.module)
    try:
        with _quiet():
            yield
    finally:
        student.forward = plain


def _why_not(student: StudentModule) -> str | None:
    """Return why a student cannot be compiled as it is used here, or None."""
    if not student.alone:
        return "the loss watches or trains parts of the student, which the compiler cannot see"
    return None


def _failure(student: StudentModule, engine: Engine, shape: tuple[int, ...]) -> str | None:
    """Return why a compiled step fails, or None if it does not."""
    module = copy.deepcopy(student.module).train()
    images = torch.zeros(shape, device=engine.device)
    if engine.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    try:
        with forked(engine.device), _quiet(), engine.autocast():
            torch.compile(module)(images).float().sum().backward()
    except Exception as error:  # the compiler, a plugin of it, or the C++ compiler that it starts, may fail in any way
        return f"the compiler fails on {type(student.module).__name__} ({first_line(error)})"
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the compiler says of its own work."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loggers = [logging.getLogger(name) for name in NOISY]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
