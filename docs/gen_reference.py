"""Generate the reference pages when the site is built: the commands' help, the methods' options, the public API."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import mkdocs_gen_files
from click.testing import CliRunner

from kdtool.cli.main import COMMANDS, cli
from kdtool.data.options import DataOptions
from kdtool.distillation.options import SearchOptions, StudentOptions
from kdtool.models.options import NetworkOptions
from kdtool.plugins.entry_points import KINDS, SINGULAR, installed
from kdtool.plugins.options import OptionInfo, Options
from kdtool.plugins.registry import load
from kdtool.training.options import EarlyOptions, Training

ROOT = Path(__file__).parent.parent
TITLES = {
    "teachers": "Sources of networks",
    "refiners": "Refiners",
    "distillers": "Distillers",
    "pruners": "Pruners",
    "exporters": "Exporters",
    "datasets": "Data sets",
}
USED = {
    "teachers": "`kdtool teacher NAME:NETWORK`, `--student NAME:NETWORK`",
    "refiners": "`kdtool refine --method NAME`, `--refiner NAME`",
    "distillers": "`kdtool distill --method NAME`; those that are a loss also `--objective NAME`",
    "pruners": "`kdtool prune --method NAME`, `--pruner NAME`",
    "exporters": "`kdtool export --method NAME`, `--exporter NAME`",
    "datasets": "`--data NAME`, `--data NAME:ARGUMENT`, `--unlabelled NAME`",
}
"""Where a method of each kind is named."""
SHARED: dict[str, type[Options]] = {
    "Student": StudentOptions,
    "Network": NetworkOptions,
    "Data": DataOptions,
    "Training": Training,
    "Search": SearchOptions,
    "Early weights": EarlyOptions,
}


def main() -> None:
    """Write all generated pages."""
    write("reference/cli.md", cli_page())
    write("reference/methods.md", methods_page())
    packages = list(public_packages())
    write("reference/api/index.md", api_index(packages))
    for package in packages:
        write(f"reference/api/{page_of(package)}", api_page(package))


def write(name: str, text: str) -> None:
    """Write a page of the site."""
    with mkdocs_gen_files.open(name, "w") as page:
        page.write(text.rstrip() + "\n")


def cli_page() -> str:
    """Return the help of the command itself and of each subcommand."""
    parts = [
        "# Command line",
        "This page is each command's own `--help`, taken when the site was built. A command with methods shows the"
        " options of its default method; `kdtool COMMAND --method NAME --help` shows those of another, and"
        " [Methods](methods.md) lists the options of all of them.",
        "Exit codes: 0 is success, 1 an expected failure, 2 wrong usage, 130 an interruption. stdout has results only;"
        " progress and messages go to stderr.",
        "## kdtool",
        help_of(),
    ]
    for command in COMMANDS:
        parts += [f"## kdtool {command}", help_of(command)]
    return "\n\n".join(parts)


def help_of(*command: str) -> str:
    """Return the help of a command as a block of text."""
    words = [*command, "--help"]
    result = CliRunner(env={"COLUMNS": "100"}).invoke(cli, words, prog_name="kdtool", standalone_mode=False, obj={})
    if result.exception is not None:
        raise result.exception
    return f"```text\n$ kdtool {' '.join(words)}\n{result.output.rstrip()}\n```"


def methods_page() -> str:
    """Return the table of methods of each kind, and each method's options."""
    parts = [
        "# Methods",
        "Every method that comes with kdtool, with its options as the plugin declares them. `kdtool plugins` lists the"
        " installed ones, of third parties too. An option is `--round-to` on the command line and `round_to=` in"
        " Python. A bound is written as `0 < x <= 1`.",
    ]
    for kind in KINDS:
        methods = [(plugin, load(plugin)) for plugin in installed() if plugin.kind == kind and plugin.builtin]
        rows = [[f"[`{plugin.name}`](#{anchor(kind, plugin.name)})", about(cls)] for plugin, cls in methods]
        parts += [f"## {TITLES[kind]}", f"Named by {USED[kind]}.", table(["name", "what it does"], rows)]
        for plugin, cls in methods:
            parts += method(kind, plugin.name, cls)
    parts += ["## Shared options", "Options that do not belong to a method; a command's help shows which it takes."]
    for title, options in SHARED.items():
        parts += [f"### {title}", option_table(options.describe())]
    return "\n\n".join(parts)


def about(cls: Any) -> str:
    """Return what a method does and when it fits."""
    return cell(f"{cls.summary()} {getattr(cls, 'fits', '')}")


def method(kind: str, name: str, cls: Any) -> list[str]:
    """Return the section of one method: its networks or its full description, and its options."""
    parts = [f"### {name} {{ #{anchor(kind, name)} }}", f"{SINGULAR[kind].capitalize()}. {about(cls)}"]
    _, _, details = inspect.cleandoc(cls.__doc__ or "").partition("\n\n")
    if details.strip():
        parts.append(f"```text\n{details.strip()}\n```")
    if kind == "teachers" and name == "kdtool":
        networks = ", ".join(f"`{name}:{network}`" for network in cls().networks())
        parts.append(f"Networks: {networks}.")
    options = [info for info in cls.describe() if not info.hidden]
    return [*parts, option_table(options)] if options else parts


def option_table(options: Iterable[OptionInfo]) -> str:
    """Return the table of declared options."""
    rows = [[f"`{flag(info)}`", value(info), default(info), cell(info.help)] for info in options]
    return table(["option", "value", "default", "what it is"], rows)


def flag(info: OptionInfo) -> str:
    """Return an option as it is typed."""
    return f"{info.flag}, --no-{info.flag[2:]}" if info.type is bool else info.flag


def value(info: OptionInfo) -> str:
    """Return what kind of value an option takes, and its bounds."""
    if info.kind:
        return f"name of a {SINGULAR[info.kind]}"
    if info.type is bool:
        return "flag"
    words = {int: "integer", float: "number", str: "text", Path: "path"}
    text = words.get(info.type, info.type.__name__.lower())
    if info.choices:
        text = ", ".join(f"`{choice}`" for choice in info.choices)
    if info.many:
        text = f"list of {text}s, separated by commas"
    if info.scheduled:
        text = f"{text}, or a schedule `A->B`"
    return f"{text}; `{info.bounds}`" if info.bounds else text


def default(info: OptionInfo) -> str:
    """Return the default of an option as it would be typed."""
    if info.required:
        return "required"
    if info.default is None or info.default == ():
        return ""
    if isinstance(info.default, bool):
        return "on" if info.default else "off"
    if isinstance(info.default, tuple):
        return f"`{','.join(str(item) for item in info.default)}`"
    text = f"{info.default:g}" if isinstance(info.default, float) else str(info.default)
    changed = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in info.defaults.items())
    return f"`{text}`" + (f" ({changed})" if changed else "")


def anchor(kind: str, name: str) -> str:
    """Return the anchor of a method; the same name may stand in several kinds."""
    return f"{kind}-{name.replace(':', '-')}"


def cell(text: str) -> str:
    """Return text that fits into a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def public_packages() -> Iterator[str]:
    """Yield the packages whose stub lists public names, kdtool itself first."""
    stubs = sorted((ROOT / "kdtool").rglob("__init__.pyi"), key=lambda path: path.parent.parts)
    for stub in stubs:
        yield ".".join(stub.parent.relative_to(ROOT).parts)


def page_of(package: str) -> str:
    """Return the file name of a package's page."""
    return f"{package.removeprefix('kdtool.')}.md"


def public_names(package: str) -> list[str]:
    """Return the public names of a package's stub, without its sub-packages."""
    stub = ROOT.joinpath(*package.split("."), "__init__.pyi")
    imports = [node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    return [name.asname or name.name for node in imports if node.module for name in node.names]


def api_index(packages: list[str]) -> str:
    """Return the page that lists all public names."""
    parts = [
        "# Python API",
        "The public API is what these packages export; everything else in kdtool may change in any release. Names are"
        " imported from the package, for example `from kdtool.surgery import halve_widths`. A name is loaded when it is"
        " first used, so that importing kdtool does not import torch. Functions that build or train networks run one at"
        " a time: threads of a process wait for each other, so use processes for several trainings at a time.",
    ]
    for package in packages:
        page = page_of(package)
        names = ", ".join(f"[`{name}`]({page}#{package}.{name})" for name in public_names(package))
        parts += [f"**[`{package}`]({page})**", names]
    return "\n\n".join(parts)


def api_page(package: str) -> str:
    """Return the page of a public package, whose entries mkdocstrings fills in."""
    described = " ".join((importlib.import_module(package).__doc__ or "").split("\n\n")[0].split())
    parts = [f"# {package}", described.replace("``", "`")]
    parts += [f"::: {package}.{name}" for name in public_names(package)]
    return "\n\n".join(parts)


main()
