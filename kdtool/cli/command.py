"""A command with the options of its method, which plans one step of a chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdtool.cli.grammar import (
    ChainCommand,
    StepContext,
    StepWords,
    common_options,
    cut,
    option_arity,
    step_names,
)
from kdtool.cli.method_options import MethodOption, Section, api_options, method_options, owners, role_methods
from kdtool.data.dataset import dataset_name
from kdtool.data.options import DataOptions
from kdtool.errors import Error, UsageError
from kdtool.exporting.names import option_names
from kdtool.plugins.entry_points import SINGULAR, Plugin, installed, names
from kdtool.plugins.places import Place, split
from kdtool.plugins.registry import load, method_class
from kdtool.training.options import Training
from kdtool.training.recipes.reading import Recipe, names as recipe_names

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from kdtool.cli.chain import ChainStep
    from kdtool.plugins.method import Method

# Each pass adds the options of the methods that the pass before has found.
PASSES = 6


@dataclass(frozen=True)
class ParsedCommand:
    """The words of one command, parsed and checked."""

    params: dict[str, Any]
    """The command's own options and arguments."""
    options: dict[str, Any]
    """The options of the method and the settings on the command line, as `kdtool.api` takes them; no defaults."""
    method: str = ""
    """The name of the method; empty for a command that uses none."""
    method_class: type[Method] | None = None


class StepCommand(ChainCommand):
    """A command that plans a step of a chain."""

    def __init__(
        self,
        name: str,
        plan: Callable[[ParsedCommand], ChainStep],
        *,
        params: Sequence[click.Parameter] = (),
        kind: str | None = None,
        default: str | None = None,
        flags: bool = False,
        alone: bool = False,
        groups: Sequence[Section] = (),
        refused: Callable[[type[Any]], str] = lambda _: "",
        **settings: Any,
    ) -> None:
        """Create a command that uses methods of ``kind``.

        A method is selected with ``--method NAME`` and, if ``flags`` is true, with ``--NAME`` too. ``groups`` are
        settings that the command takes in addition to the method's options. ``refused`` returns why the command cannot
        use a method, or an empty text.
        """
        self.plan, self.kind, self.default_method, self.groups, self.flags = plan, kind, default, groups, flags
        self.alone, self.refused = alone, refused
        own = [_method_option(kind, default, refused), *params] if kind and default else [*params]
        super().__init__(name, params=[*own, *common_options()], **settings)

    def method_named(self, segment: StepWords) -> str | None:
        """Return the method that a step's words name, the last if there are several."""
        return next(reversed(self._methods_typed(segment).values()), None)

    def _methods_typed(self, segment: StepWords) -> dict[str, str]:
        """Return the method that each ``--method NAME`` and ``--NAME`` of a step names, by these words."""
        flags = [f"--{name}" for name in self.method_flags()]
        return {
            f"{flag} {value}".strip(): value if flag == "--method" else flag[2:]
            for flag, value in segment.values.items()
            if flag in ("--method", *flags)
        }

    def method_flags(self) -> list[str]:
        """Return the methods that are selected with ``--NAME``: all but those whose name an option has."""
        return [name for name in names(self.kind) if name not in option_names()] if self.flags and self.kind else []

    def segment(self, ctx: click.Context, words: Sequence[str]) -> StepWords:
        """Find the step's method and the methods in its roles, add their options to ``ctx``, and return its words."""
        assert isinstance(ctx, StepContext)
        own = option_arity(super().get_params(ctx))
        ctx.flag_options = [_method_flag(self.kind or "", name) for name in self.method_flags()]
        own |= option_arity(ctx.flag_options)
        steps = step_names(ctx)
        chosen: dict[Place, str] = {}
        segment = StepWords([], [])
        for _ in range(PASSES):
            segment = cut(words, {**option_arity(ctx.method_options), **own}, steps)
            typed = self.method_named(segment)
            method = typed or self.default_method
            roles = role_methods(ctx.method_options, segment.values)
            if (method, roles) == (ctx.method, chosen) and ctx.method_options:
                break
            ctx.method, ctx.method_given, chosen = method, typed is not None, roles
            try:
                sections = self.sections(ctx)
                if ctx.method_class is not None:
                    ctx.method_class.check_beside([group.options for group in self.groups])
                ctx.method_options = method_options(sections, chosen, own)
            except Error:
                if not ctx.resilient_parsing:
                    raise
                break
        typed_by = self._methods_typed(segment)
        if len({*typed_by.values()}) > 1 and not ctx.resilient_parsing:
            steps_of_each = " ".join(f"{self.name} {words}" for words in typed_by)
            raise UsageError(f"{' and '.join(typed_by)}: {self.name} writes one format; for all write {steps_of_each}")
        return segment

    def sections(self, ctx: StepContext) -> list[Section]:
        """Return the sections with the options of the method and of the settings."""
        ctx.method_class = method_class(self.kind, ctx.method) if self.kind and ctx.method else None
        if ctx.method_class is None:
            return [*self.groups]
        if why := self.refused(ctx.method_class):
            raise UsageError(f"--method {ctx.method}: {why}")
        default = "" if ctx.method_given else " (the default method)"
        return [Section(f"Options of {ctx.method}{default}", ctx.method_class), *self.groups]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's parameters and those of the method in use."""
        own = super().get_params(ctx)
        return [*own, *ctx.flag_options, *ctx.method_options] if isinstance(ctx, StepContext) else own

    def invoke(self, ctx: click.Context) -> ChainStep:
        """Check the options and plan the step; nothing runs yet."""
        assert isinstance(ctx, StepContext)
        own = {param.name: ctx.params.get(param.name) for param in self.params if param.name}
        for flag in ctx.flag_options:
            folder = ctx.params.get(flag.name or "")
            if isinstance(folder, Path):
                if own.get("output") is not None:
                    raise UsageError(f"{flag.opts[0]} {folder}: -o {own['output']} names another output; leave one out")
                own["output"] = folder
        options = api_options(ctx.method_options, ctx.params)
        groups = [section.options for section in self.groups]
        classes = [ctx.method_class, *groups] if ctx.method_class else groups
        settings = own
        for cls, values in zip(classes, split(options, *classes), strict=True):
            # Make the checks of the class: required options, methods in roles, values that depend on each other.
            cls(**values)
            if cls is not ctx.method_class:
                settings = {**settings, **values}
        for name in ("data", "unlabelled"):
            if DataOptions in classes and name in options:
                dataset_name(options[name])
        step = self.plan(ParsedCommand(own, options, ctx.method or "", ctx.method_class))
        return replace(step, settings=settings)

    def explain(self, ctx: click.Context, flag: str, value: str = "") -> str:
        """Return an error message that says which methods have the option, or which options have a similar name."""
        from kdtool.cli.explain import meant_by, unknown_option

        assert isinstance(ctx, StepContext)
        name = flag.removeprefix("--no-").removeprefix("--").replace("-", "_")
        for option in ctx.method_options:
            if flag.startswith("--no-") and option.flags[0] == f"--{flag[5:]}":
                off = [choice for choice in option.info.choices or () if choice in ("none", "off")]
                hint = f"write {option.flags[0]} {off[0]}" if off else "leave it out"
                return f"{self.name} has no option {flag}; {hint}"
        shared = [option.flags[0] for option in ctx.method_options if option.info.name == name]
        if shared and len(shared) > 1 - ("_" not in flag):
            return f"{flag} is ambiguous; write {' or '.join(shared)}"
        known = [*self.flags_of(ctx), *(["--method"] if self.kind and not self.default_method else [])]
        if (meant := meant_by(self.name or "", flag, known, value)) and ctx.method == self.default_method:
            return f"{self.name} has no option {flag}{meant}"
        methods = owners(self.kind, name) if self.kind else []
        if methods := [method for method in methods if not self.refused(method_class(self.kind or "", method))]:
            return f"{flag} is an option of {self.as_typed(methods)}, not of {self.as_typed([ctx.method or ''])}"
        for option in ctx.method_options:
            role = option.flags[0]
            inner = name.removeprefix(role[2:].replace("-", "_") + "_")
            methods = owners(option.info.kind, inner) if option.info.kind else []
            if methods := [method for method in methods if method_class(option.info.kind or "", method).fills_role()]:
                return f"{flag} is an option of {role} {' or '.join(methods)}"
        return f"{self.name} has no option {flag}{unknown_option(self.name or '', flag, known, value, self.kind)}"

    def as_typed(self, methods: Sequence[str]) -> str:
        """Return methods as they are typed on the command line."""
        return f"--method {' or '.join(methods)}"

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of the command and of its method, and the list of methods if none was named."""
        assert isinstance(ctx, StepContext)
        records: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                title = param.section.title if isinstance(param, MethodOption) else "Options"
                records.setdefault(title, []).append(record)
        for title in sorted(records, key=_section_order(ctx.method_options)):
            with formatter.section(title):
                formatter.write_dl(records[title])
        if any(section.options is Training for section in self.groups):
            with formatter.section("Recipes (--recipe NAME; options that are given win)"):
                formatter.write_dl([(recipe.name, recipe.summary()) for recipe in map(Recipe.parse, recipe_names())])
        if self.kind and not ctx.method_given:
            with formatter.section(self.methods_title()):
                formatter.write_dl([(plugin.name, _summary(plugin)) for plugin in self._offered(self.kind)])

    def _offered(self, kind: str) -> list[Plugin]:
        """Return the methods that the help lists; those of other packages are not imported for that."""
        methods = [(plugin, _builtin(plugin)) for plugin in _plugins(kind)]
        return [plugin for plugin, method in methods if method is None or not self.refused(method)]

    def methods_title(self) -> str:
        """Return the heading of the list of methods."""
        return f"Methods (kdtool {self.name} --method NAME --help shows its options)"


class MethodName(click.ParamType):  # type: ignore[type-arg]
    """The name of an installed method."""

    name = "name"

    def __init__(self, kind: str, refused: Callable[[type[Any]], str]) -> None:
        """Complete the names of methods of ``kind``, without those that are ``refused``."""
        self.kind, self.refused = kind, refused

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the matching names, from the metadata of installed packages."""
        from kdtool.cli.candidates import methods

        return methods(self.kind, incomplete, self.refused)


def _method_option(kind: str, default: str, refused: Callable[[type[Any]], str]) -> click.Option:
    help = f"{SINGULAR[kind]} to use  [default: {default}]"
    return click.Option(["--method"], type=MethodName(kind, refused), metavar="NAME", help=help)


def _method_flag(kind: str, method: str) -> click.Option:
    """Return ``--NAME``, or ``--NAME DIR`` for a built-in method that writes a folder."""
    words = [f"--{method}", f"flag_{method.replace('-', '_')}"]
    if _writes_folder(kind, method):
        about = f"folder to write; same as --method {method} -o DIR"
        return click.Option(words, type=click.Path(path_type=Path), metavar="DIR", help=about)
    return click.Option(words, is_flag=True, help=f"same as --method {method}")


def _writes_folder(kind: str, method: str) -> bool:
    return any(getattr(_builtin(plugin), "folder", False) for plugin in _plugins(kind) if plugin.name == method)


def _section_order(options: Sequence[MethodOption]) -> Callable[[str], tuple[int, int]]:
    """Return a sort key for headings: the options of a role's method come after those of the method with the role."""
    outer = [option.section.title for option in options if len(option.place) == 1]
    position = {option.place[0]: outer.index(option.section.title) for option in options if len(option.place) == 1}
    keys = {option.section.title: (position[option.place[0]], len(option.place)) for option in options}
    return lambda title: keys.get(title, (-1, 0))


def _plugins(kind: str) -> list[Plugin]:
    return [plugin for plugin in installed() if plugin.kind == kind]


def _builtin(plugin: Plugin) -> type[Method] | None:
    """Return the class of a built-in method that works; others' plugins are not imported for a text of help."""
    try:
        return load(plugin) if plugin.builtin else None
    except UsageError:
        return None


def _summary(plugin: Plugin) -> str:
    """Return a method's help text and when it is suitable; methods of other packages are not imported for that."""
    if not plugin.builtin:
        return f"(from {plugin.distribution} {plugin.version})"
    try:
        cls = load(plugin)
    except UsageError as error:
        return f"broken: {error}"
    return f"{cls.summary()} {getattr(cls, 'fits', '')}".strip()
