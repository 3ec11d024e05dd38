"""A built-in command: its own options, those of its method, and the step that it plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from kdtool.cli.grammar import DEBUG_HELP, ChainCommand, StepContext, StepWords, cut, set_debug, step_names, takes
from kdtool.cli.method_options import MethodOption, Place, Section, explicit, method_options, named, owners
from kdtool.data.options import DataOptions
from kdtool.errors import Error, UsageError, nearest
from kdtool.plugins.entry_points import SINGULAR, Plugin, installed, names
from kdtool.plugins.options import split
from kdtool.plugins.registry import load, method_class

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from kdtool.cli.chain import ChainStep
    from kdtool.plugins.method import Method

# Each pass finds the options of the methods that the one before has found.
PASSES = 6


@dataclass(frozen=True)
class Given:
    """What was typed for one command, parsed and checked."""

    params: dict[str, Any]
    """The command's own options and arguments."""
    options: dict[str, Any]
    """The options of the method and of the settings that were given, as the API takes them."""
    method: str = ""
    method_class: type[Method] | None = None


class StepCommand(ChainCommand):
    """A command that plans a step of a chain."""

    def __init__(
        self,
        name: str,
        plan: Callable[[Given], ChainStep],
        *,
        params: Sequence[click.Parameter] = (),
        kind: str | None = None,
        default: str | None = None,
        flags: bool = False,
        alone: bool = False,
        groups: Sequence[Section] = (),
        **about: Any,
    ) -> None:
        """Make a command that uses methods of ``kind``, which go by ``--method`` and, with ``flags``, by their names.

        ``groups`` are settings that it takes beside the method's options.
        """
        self.plan, self.kind, self.default_method, self.groups, self.flags = plan, kind, default, groups, flags
        self.alone = alone
        own = [_method_option(kind, default), *params] if kind and default else [*params]
        debug = click.Option(["--debug"], is_flag=True, expose_value=False, callback=set_debug, help=DEBUG_HELP)
        super().__init__(name, params=[*own, debug], **about)

    def method_named(self, segment: StepWords) -> str | None:
        """Return the method that a step's words name, the last where there are several."""
        found = None
        for flag, value in segment.values.items():
            if flag == "--method":
                found = value
            elif self.flags and self.kind and flag[2:] in names(self.kind):
                found = flag[2:]
        return found

    def segment(self, ctx: click.Context, words: Sequence[str]) -> StepWords:
        """Find the method and those in its roles, add their options for this parse, and cut the step's words."""
        assert isinstance(ctx, StepContext)
        own = takes(super().get_params(ctx))
        if self.flags and self.kind:
            ctx.flag_options = [_method_flag(one) for one in names(self.kind) if f"--{one}" not in own]
        own |= takes(ctx.flag_options)
        steps = step_names(ctx)
        chosen: dict[Place, str] = {}
        segment = StepWords([], [])
        for _ in range(PASSES):
            segment = cut(words, {**takes(ctx.method_options), **own}, steps)
            given = self.method_named(segment)
            method = given or self.default_method
            roles = named(ctx.method_options, segment.values)
            if (method, roles) == (ctx.method, chosen) and ctx.method_options:
                break
            ctx.method, ctx.method_given, chosen = method, given is not None, roles
            try:
                ctx.method_options = method_options(self.sections(ctx), chosen, own)
            except Error:
                if not ctx.resilient_parsing:
                    raise
                break
        return segment

    def sections(self, ctx: StepContext) -> list[Section]:
        """Return the options that the method and the settings bring."""
        ctx.method_class = method_class(self.kind, ctx.method) if self.kind and ctx.method else None
        if ctx.method_class is None:
            return [*self.groups]
        default = "" if ctx.method_given else " (the default method)"
        return [Section(f"Options of {ctx.method}{default}", ctx.method_class), *self.groups]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's parameters and those of the method in use."""
        found = super().get_params(ctx)
        return [*found, *ctx.flag_options, *ctx.method_options] if isinstance(ctx, StepContext) else found

    def invoke(self, ctx: click.Context) -> ChainStep:
        """Check what was given and plan the step; nothing runs yet."""
        assert isinstance(ctx, StepContext)
        own = {param.name: ctx.params.get(param.name) for param in self.params if param.name}
        options = explicit(ctx.method_options, ctx.params)
        groups = [section.options for section in self.groups]
        classes = [ctx.method_class, *groups] if ctx.method_class else groups
        for cls, given in zip(classes, split(options, *classes), strict=True):
            # The declaration's own checks: options that are required, methods in roles, numbers that go together.
            cls(**given)
        for name in ("data", "unlabelled"):
            if DataOptions in classes and name in options:
                method_class("datasets", options[name].partition(":")[0])
        return self.plan(Given(own, options, ctx.method or "", ctx.method_class))

    def explain(self, ctx: click.Context, flag: str) -> str:
        """Say whose option it is, else which ones have a name near to it."""
        assert isinstance(ctx, StepContext)
        name = flag.removeprefix("--no-").removeprefix("--").replace("-", "_")
        shared = [option.flags[0] for option in ctx.method_options if option.info.name == name]
        if shared:
            return f"{flag}: say which, {' or '.join(shared)}"
        if self.kind and (found := owners(self.kind, name)):
            return f"{flag} belongs to {self.speak(found)}, and this is {self.speak([ctx.method or ''])}"
        for option in ctx.method_options:
            role = option.flags[0]
            inner = name.removeprefix(role[2:].replace("-", "_") + "_")
            found = owners(option.info.kind, inner) if option.info.kind else []
            if found := [one for one in found if method_class(option.info.kind or "", one).fills_role()]:
                return f"{flag} belongs to {role} {' or '.join(found)}"
        return f"{self.name} has no option {flag}{nearest(flag, takes(self.get_params(ctx)), count=1)}"

    def speak(self, methods: Sequence[str]) -> str:
        """Return how methods are named on the command line."""
        return f"--method {' or '.join(methods)}"

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's options, those of the method in use, and what other methods there are."""
        assert isinstance(ctx, StepContext)
        records: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                title = param.section.title if isinstance(param, MethodOption) else "Options"
                records.setdefault(title, []).append(record)
        for title in sorted(records, key=_order(ctx.method_options)):
            with formatter.section(title):
                formatter.write_dl(records[title])
        if self.kind and not ctx.method_given:
            with formatter.section(self.methods_title()):
                formatter.write_dl([(plugin.name, _summary(plugin)) for plugin in _plugins(self.kind)])

    def methods_title(self) -> str:
        """Return the heading of the list of methods."""
        return f"Methods (kdtool {self.name} --method NAME --help shows its options)"


class MethodName(click.ParamType):  # type: ignore[type-arg]
    """The name of an installed method."""

    name = "name"

    def __init__(self, kind: str) -> None:
        """Take the kind."""
        self.kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names from the installed packages' metadata."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in names(self.kind) if name.startswith(incomplete)]


def _method_option(kind: str, default: str) -> click.Option:
    help = f"{SINGULAR[kind]} to use  [default: {default}]"
    return click.Option(["--method"], type=MethodName(kind), metavar="NAME", help=help)


def _method_flag(method: str) -> click.Option:
    help = f"the same as --method {method}"
    return click.Option([f"--{method}", f"flag_{method.replace('-', '_')}"], is_flag=True, help=help)


def _order(options: Sequence[MethodOption]) -> Callable[[str], tuple[int, int]]:
    """Return the key that sorts headings: the options of a role's method stand behind those that have the role."""
    outer = [option.section.title for option in options if len(option.place) == 1]
    at = {option.place[0]: outer.index(option.section.title) for option in options if len(option.place) == 1}
    keys = {option.section.title: (at[option.place[0]], len(option.place)) for option in options}
    return lambda title: keys.get(title, (-1, 0))


def _plugins(kind: str) -> list[Plugin]:
    return [plugin for plugin in installed() if plugin.kind == kind]


def _summary(plugin: Plugin) -> str:
    """Return a method's help text, and when it fits; one that came with another package is not imported for it."""
    if not plugin.builtin:
        return f"(from {plugin.distribution} {plugin.version})"
    try:
        cls = load(plugin)
    except UsageError as error:
        return f"broken: {error}"
    return f"{cls.summary()} {getattr(cls, 'fits', '')}".strip()
