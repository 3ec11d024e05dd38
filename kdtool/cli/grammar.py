"""The grammar of a chain: options and files come in any order, and the name of a command begins the next step."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from kdtool.errors import UsageError

if TYPE_CHECKING:
    from kdtool.cli.method_options import MethodOption
    from kdtool.plugins.method import Method


@dataclass
class StepWords:
    """The words of one step, and the words of the steps after it."""

    words: list[str]
    rest: list[str]
    values: dict[str, str] = field(default_factory=dict)
    """The last value of each option, in the order of the command line; the value of a flag is empty."""
    loose: list[str] = field(default_factory=list)
    """Words that are neither options nor values of known options."""
    doubtful: list[str] = field(default_factory=list)
    """Words after an unknown option, which may be its value."""


def cut(words: Sequence[str], arity: Mapping[str, int], steps: Container[str]) -> StepWords:
    """Separate the words of a step from those of the next step, which begins with the name of a command.

    ``arity`` is the number of words that follow each known option, so that a value with the name of a command
    (``-o prune``) stays a value. No word after ``--`` begins a step, nor does ``./prune``.
    """
    segment = StepWords([], [])
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            segment.loose += words[at + 1 :]
            at = len(words)
        elif word.startswith("-") and len(word) > 1:
            at += 1 + _option(word, words[at + 1 :], arity, steps, segment)
        elif word in steps:
            break
        else:
            segment.loose.append(word)
            at += 1
    segment.words, segment.rest = list(words[:at]), list(words[at:])
    return segment


def _option(
    word: str, following: Sequence[str], arity: Mapping[str, int], steps: Container[str], segment: StepWords
) -> int:
    """Record one option in ``segment`` and return how many of the following words are its values."""
    name, equals, attached = word.partition("=")
    if not word.startswith("--"):
        # Short options may be joined: -fo NAME, -foNAME.
        name, equals = word[:2], ""
        for index, letter in enumerate(word[1:], start=1):
            name, attached = f"-{letter}", word[index + 1 :]
            if arity.get(name) != 0:
                break
            segment.values[name] = ""
    if name not in arity:
        value = following[0] if following and not equals else None
        if value is None or value.startswith("-") or value in steps:
            return 0
        segment.doubtful.append(value)
        return 1
    segment.values.pop(name, None)
    count = arity[name]
    if equals or attached or not count:
        segment.values[name] = attached
        return 0
    if following:
        segment.values[name] = following[0]
    return min(count, len(following))


def option_arity(params: Iterable[click.Parameter]) -> dict[str, int]:
    """Return for each option's name how many words follow it."""
    return {
        name: 0 if param.is_flag or param.count else param.nargs
        for param in params
        if isinstance(param, click.Option)
        for name in (*param.opts, *param.secondary_opts)
    }


class StepContext(click.Context):
    """The context of one step; it stores the step's method and options, since click shares ``meta`` among all steps."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.method: str | None = None
        self.method_class: type[Method] | None = None
        self.method_given = False
        self.flag_options: list[click.Option] = []
        self.method_options: list[MethodOption] = []


class ChainCommand(click.Command):
    """A command that does not parse the words of the next step, and takes options before and after its files."""

    context_class = StepContext
    alone = False
    """Whether the command cannot be a step of a chain."""

    def segment(self, ctx: click.Context, words: Sequence[str]) -> StepWords:
        """Return this step's part of ``words``."""
        return cut(words, option_arity(self.get_params(ctx)), step_names(ctx))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse this step's words and leave the rest in ``ctx.args``, where click looks for the next step."""
        segment = self.segment(ctx, args)
        # In a chain, click accepts options only before the files unless this is set.
        ctx.allow_interspersed_args = True
        try:
            left_over = super().parse_args(ctx, list(segment.words))
        except click.NoSuchOption as error:
            flag = _typed(error.option_name, segment.words)
            raise UsageError(self.explain(ctx, flag, _value(flag, segment.words))) from error
        except click.BadOptionUsage as error:
            raise self._without_value(ctx, error) from error
        ctx.args = segment.rest
        if not ctx.resilient_parsing:
            self._check_words(ctx, left_over)
        return ctx.args

    def _check_words(self, ctx: click.Context, left_over: Sequence[str]) -> None:
        if left_over:
            from kdtool.cli.explain import unexpected_word

            hint = unexpected_word(left_over[0], ctx.params.values(), step_names(ctx), self.flags_of(ctx))
            raise UsageError(f"{self.name}: unexpected argument {left_over[0]!r}{hint}")
        earlier: list[ChainCommand] = ctx.find_root().meta.setdefault("kdtool.steps", [])
        if self.alone and (earlier or ctx.args):
            raise UsageError(f"{self.name} cannot be part of a chain; run it alone")
        earlier.append(self)

    def _without_value(self, ctx: click.Context, error: click.BadOptionUsage) -> Exception:
        """Return the error of an option that stands without its value, in place of click's."""
        from kdtool.cli.explain import needs_value

        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and error.option_name in param.opts and not param.is_flag:
                return UsageError(needs_value(param, error.option_name))
        return error

    def explain(self, ctx: click.Context, flag: str, value: str = "") -> str:
        """Return the error message for an option that this command does not have, with ``value`` behind it."""
        from kdtool.cli.explain import unknown_option

        return f"{self.name} has no option {flag}{unknown_option(self.name or '', flag, self.flags_of(ctx), value)}"

    def flags_of(self, ctx: click.Context) -> list[str]:
        """Return the names of all options that this command has."""
        return list(option_arity(self.get_params(ctx)))


def _typed(flag: str, words: Sequence[str]) -> str:
    """Return an unknown option as it was typed: ``-epochs``, where click names the first letter that it cannot read."""
    if flag.startswith("--"):
        return flag
    long = [word for word in words if word[:1] == "-" and word[:2] != "--" and flag[1:] in word and len(word) > 2]
    return long[0].partition("=")[0] if long and long[0][1:].isalpha() else flag


def _value(flag: str, words: Sequence[str]) -> str:
    """Return the word that was typed behind an unknown option, which may be its value, or an empty text."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
        if word == flag:
            return "" if after.startswith("-") else after
    return ""


def step_names(ctx: click.Context) -> list[str]:
    """Return the names of the commands, which begin a step."""
    parent = ctx.parent
    return parent.command.list_commands(parent) if parent and isinstance(parent.command, click.Group) else []


def common_options() -> list[click.Parameter]:
    """Return the options that every command has, at any place of the command line; they hold for the whole of it."""
    return [
        _flag("debug", ["--debug"], "show tracebacks, and the warnings of libraries"),
        _flag("quiet", ["-q", "--quiet"], "print nothing on stderr but errors"),
        _flag("verbose", ["-v", "--verbose"], "print a line for each phase and each epoch"),
        click.Option(
            ["--trust"],
            multiple=True,
            metavar="PACKAGE",
            expose_value=False,
            callback=_trust,
            help="let kdtool import this package, from where it is now, to build networks by its functions; "
            "remembered unless the command is wrong or a dry run, see kdtool trust",
        ),
    ]


def _trust(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> None:
    if not value or ctx.resilient_parsing:
        return
    if ctx.find_root().ensure_object(dict).get("recipe"):
        raise UsageError("--trust: is for you to say, not for a recipe; leave it out, and add it to kdtool run")
    from kdtool.plugins.trust import trusted_meanwhile

    for package in value:
        ctx.find_root().with_resource(trusted_meanwhile(package))


def _flag(name: str, flags: list[str], help: str) -> click.Option:
    def store(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        # In the object of the root context, since click has a context for each step.
        if value:
            ctx.find_root().ensure_object(dict)[name] = True

    return click.Option(flags, is_flag=True, expose_value=False, callback=store, help=help)
