"""The calls of torch's functions in a forward pass, each with a name that is the same in every pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_SAME = {"radd": "add", "iadd": "add", "rmul": "mul", "imul": "mul", "multiply": "mul", "concat": "cat"}
"""Other names of the same function, without underscores at their ends."""


def operation(func: Callable[..., Any]) -> str:
    """Return the name of a function of torch, the same for its method and its in-place form."""
    name = str(getattr(func, "__name__", "")).strip("_")
    return _SAME.get(name, name)


class Scopes:
    """Follows which module runs, and counts the calls in it, so that each call of a forward pass has a name."""

    def __init__(self) -> None:
        self.stack: list[str] = []
        self.counts: dict[tuple[str, str], int] = {}

    def begin(self) -> None:
        """Begin a forward pass; what a pass that was stopped has left is forgotten."""
        self.stack.clear()
        self.counts.clear()

    def name(self, func: Callable[..., Any]) -> str:
        """Return the name of the next call: ``layer1.0:add:0`` is the first addition in the module layer1.0."""
        path, kind = self.stack[-1] if self.stack else "", operation(func)
        count = self.counts.get((path, kind), 0)
        self.counts[path, kind] = count + 1
        return f"{path}:{kind}:{count}"

    def follow(self, module: nn.Module) -> list[Any]:
        """Follow all submodules of a network; return the handles that end it."""
        handles = []
        for path, part in module.named_modules():
            if path:
                scope = _Scope(self, path)
                handles += [part.register_forward_pre_hook(scope.enter), part.register_forward_hook(scope.leave)]
        return handles


class _Scope:
    """A module while it runs. Its methods are hooks, which a copy of the network gets too."""

    def __init__(self, scopes: Scopes, path: str) -> None:
        self.scopes, self.path = scopes, path

    def enter(self, *_: Any) -> None:
        self.scopes.stack.append(self.path)

    def leave(self, *_: Any) -> None:
        # A stopped pass may have left modules inside this one.
        while self.scopes.stack and self.scopes.stack.pop() != self.path:
            pass


class CallMode(TorchFunctionMode):
    """Gives each call of a function of torch to ``answer(name, func, args, kwargs)``, which returns its result."""

    def __init__(self, scopes: Scopes, answer: Callable[[str, Callable[..., Any], list[Any], dict[str, Any]], Any]):
        super().__init__()
        self.scopes, self.answer = scopes, answer

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Name the call and answer it."""
        return self.answer(self.scopes.name(func), func, list(args), kwargs or {})


def argument(args: list[Any], kwargs: dict[str, Any], place: int, name: str) -> Any:
    """Return an argument of a call, or None if it was not given."""
    return args[place] if len(args) > place else kwargs.get(name)


def put(args: list[Any], kwargs: dict[str, Any], place: int, name: str, value: Any) -> None:
    """Replace an argument of a call."""
    if len(args) > place:
        args[place] = value
    else:
        kwargs[name] = value


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in an argument or a result, in their order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    return [item for part in value for item in tensors_in(part)] if isinstance(value, list | tuple) else []
