"""Build a network without its random initialisation, for weights that are replaced or never read.

Drawing those weights would only cost time. A file may name any network, so the memory of a build can be limited too.

Code that reads the weights it has just drawn, such as to divide by the largest, may fail with the zeros in their place.
Such a network is built again with its random numbers, under the same limit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kdtool.errors import FAILURES, Error, first_line
from kdtool.models.edits import check_names
from kdtool.utils.seeds import forked, set_seed

M = TypeVar("M", bound=nn.Module)

# What a build may take in bytes, whatever the file; and how many times the bytes of the weights: a network that was
# halved four times began with 256 times as many.
LEAST_MEMORY, MEMORY_FACTOR = 1 << 28, 1 << 9

_RANDOM_METHODS = frozenset({Tensor.uniform_, Tensor.normal_, Tensor.bernoulli_, Tensor.exponential_})

# Functions of torch.nn.init. The mode sees the call of the function, but not the calls inside it.
_INIT_FUNCTIONS = frozenset(
    f"{name}_"
    for name in (
        *("uniform", "normal", "trunc_normal", "xavier_uniform", "xavier_normal"),
        *("kaiming_uniform", "kaiming_normal", "orthogonal", "sparse"),
    )
)

# Functions that make a tensor of a size that is given by numbers.
_FACTORIES = frozenset(
    {
        *(torch.empty, torch.zeros, torch.ones, torch.full, torch.eye, torch.arange, torch.linspace),
        *(torch.rand, torch.randn, torch.randint, torch.randperm),
    }
)

# The result of a function can be much larger than a tensor that has this many numbers.
_LARGE = 1 << 12

# Reads of a tensor as a Python number, which a meta tensor cannot answer.
_SCALAR_READS = frozenset({Tensor.__float__, Tensor.item})

# A transformation of random numbers, inside trunc_normal_: of zeros it would be wasted work.
_TRANSFORMS = frozenset({Tensor.erfinv_})


class NoInit(TorchFunctionMode):
    """Skip random initialisation: tensors that would be filled with random numbers become zero.

    Zero, not uninitialised memory, because torch.nn.init.trunc_normal_ draws until all numbers lie within bounds.
    """

    def __init__(self, limit: int | None = None) -> None:
        """Let the tensors that are made take at most ``limit`` bytes, counted before they are made."""
        super().__init__()
        self.limit, self.taken = limit, 0
        self.skipped = False
        """Whether a tensor became zero in place of random numbers, so that a failure may be due to the zeros."""
        self.exceeded = False
        """Whether the limit was reached. The code that builds a network may replace the error that says so."""

    def _count(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> None:
        """Count what a call will allocate, found by making the same call on the meta device.

        Raises:
            Error: it is too much.
        """
        if self.limit is None:
            return
        if func in _FACTORIES:
            try:
                result = func(*args, **{**(kwargs or {}), "device": "meta"})
            except (RuntimeError, TypeError, ValueError, NotImplementedError):
                return  # the call itself fails too
        else:
            result = on_meta(func, args, kwargs or {}, least=_LARGE)
        made = result if isinstance(result, list | tuple) else [result]
        self.taken += sum(tensor.nbytes for tensor in made if isinstance(tensor, Tensor))
        if self.taken > self.limit:
            self.exceeded = True
            raise Error(
                f"building the network takes more than {self.limit >> 20} MiB, which the weights do not call for"
            )

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call every function but the random ones."""
        target = _random_target(func, args, kwargs)
        if target is not None:
            self.skipped = True
            with torch.no_grad():
                return target.zero_()
        if func in _TRANSFORMS:
            return args[0]
        self._count(func, args, kwargs)
        return func(*args, **(kwargs or {}))


def on_meta(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], *, least: int) -> Any:
    """Return the result of a function without memory, if one of its tensors has ``least`` numbers; else None.

    It is None too where the function fails, or has no such form.
    """
    values = [*_flat(args), *kwargs.values()]
    if not any(isinstance(value, Tensor) and value.numel() >= least and not value.is_meta for value in values):
        return None
    # Functions that only look at a tensor, or give it another type or place, take no more memory than it has.
    if getattr(func, "__name__", "") in _HARMLESS:
        return None
    try:
        with torch._C.DisableTorchFunction():
            return func(*_as_meta(args), **{key: _as_meta(value) for key, value in kwargs.items()})
    except Exception:  # some functions have no meta form; what a call raises, it will raise itself
        return None


_HARMLESS = frozenset(
    {"__get__", "__set__", "size", "dim", "numel", "stride", "data_ptr", "item", "tolist", "numpy", "__float__"}
)


def _flat(values: Iterable[Any]) -> list[Any]:
    return [inner for value in values for inner in (value if isinstance(value, list | tuple) else [value])]


def _as_meta(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_as_meta, value))
    return value.detach().to("meta") if isinstance(value, Tensor) else value


def _random_target(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Tensor | None:
    """Return the tensor that a call would fill with random numbers, or None if it would fill none."""
    if func in _RANDOM_METHODS:
        return args[0]  # type: ignore[no-any-return]
    if getattr(func, "__module__", "") == "torch.nn.init" and func.__name__ in _INIT_FUNCTIONS:
        return args[0] if args else kwargs["tensor"]  # type: ignore[no-any-return]
    return None


class Outline(NoInit):
    """Skip the memory as well: tensors that would hold random numbers are on PyTorch's meta device, shape only."""

    invented = False
    """Whether a number of a tensor without memory was asked for, so that what was built may not be what it would be."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Allocate on the meta device, and do not fill meta tensors."""
        if func is torch.empty:
            return func(*args, **{**(kwargs or {}), "device": "meta"})
        if func in _SCALAR_READS and args[0].is_meta:
            self.invented = True
            return 1.0
        target = _random_target(func, args, kwargs)
        if target is not None and target.is_meta:
            return target
        return super().__torch_function__(func, types, args, kwargs)


class Drawn(NoInit):
    """Draw the random numbers, and only limit the memory.

    A tensor counts again when it is filled: functions of torch.nn.init make others of its size, which no mode sees.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call every function."""
        self._count(func, args, kwargs)
        return func(*args, **(kwargs or {}))


def without_init(make: Callable[[], M], limit: int | None = None) -> M:
    """Return the network that ``make`` builds, with zeros for random numbers unless it cannot be built from zeros.

    Each attempt may take ``limit`` bytes. The random state does not change.

    Raises:
        Error: it takes more memory; or any exception of ``make``.
    """
    quick = NoInit(limit)
    with forked():
        try:
            with quick:
                return make()
        except (Error, *FAILURES):
            # A second attempt cannot help where no zero was read, and must not be had by exceeding the limit.
            if quick.exceeded or not quick.skipped:
                raise
        set_seed(0)
        with Drawn(limit):
            return make()


def base_for(make: Callable[[], M], weights: Mapping[str, Tensor], name: str) -> M:
    """Return the network that ``make`` builds, to load these weights; it takes no memory for tensors that they replace.

    Some networks cannot be built in this way. Theirs takes no more memory than the weights can call for. ``name`` is
    that of the network, for messages.

    Raises:
        Error: the network cannot be built, or the weights have other names.
    """
    limit = max(LEAST_MEMORY, MEMORY_FACTOR * sum(tensor.nbytes for tensor in weights.values()))
    outline = Outline(LEAST_MEMORY)
    module: M | None = None
    with forked(), contextlib.suppress(NotImplementedError, Error, *FAILURES), outline:
        module = make()
    if module is not None:
        _check(module, weights, name)
        if not outline.invented and not lacks_memory(module, weights):
            return module
    try:
        module = without_init(make, limit)
    except FAILURES as error:
        raise Error(f"{name}: cannot be built: {first_line(error)}") from error
    _check(module, weights, name)
    return module


def _check(module: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    try:
        check_names(module, weights)
    except Error as error:
        raise Error(f"{name}: {error}") from error


def lacks_memory(module: nn.Module, weights: Container[str]) -> bool:
    """Return whether a network has a tensor without memory that none of the ``weights``, named so, will replace."""
    replaced = {id(tensor) for path, tensor in [*module.named_parameters(), *module.named_buffers()] if path in weights}
    return any(
        isinstance(value, Tensor) and value.is_meta and id(value) not in replaced
        for part in module.modules()
        for value in (*part._parameters.values(), *part._buffers.values(), *vars(part).values())
    )
