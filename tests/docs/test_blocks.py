"""Every command and every piece of Python in the documents works: the blocks of a page are run from top to bottom.

What happens to a block depends on its language:

- ``bash``, ``sh`` and ``console``: each line that begins with ``kdtool`` is run.
- ``python``: it is executed; the blocks of a page share their names. ``py`` is for fragments, which are not looked at.
- ``toml`` with entry points: it installs the plugin whose class the page has shown.
- Any block with ``title="NAME"`` is written to that file.

A block is long if its first line, or the line before it, says so: ``# long: why`` or ``<!-- long: why -->``. The quick
test only checks its commands, as a chain is checked before it runs; the slow test runs them. A block that needs what is
not on every machine (a data set other than the digits, weights, a GPU) is only checked in both tests. Where the block
does not show that, it is marked with ``elsewhere`` in place of ``long``.
"""

from __future__ import annotations

import ast
import glob
import re
import shlex
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from kdtool.cli import chain
from kdtool.cli.commands import distill, run
from kdtool.cli.main import cli
from kdtool.plugins import entry_points

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("examples/**/README.md")),
]
SHELLS = ("bash", "sh", "console")
FENCE = re.compile(
    r"^(?:[ ]*<!-- (?P<mark>long|elsewhere)\b[^\n]*-->\n)?"
    r"(?P<indent>[ ]*)```(?P<language>\w*)(?P<about>[^\n`]*)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
MARK = re.compile(r"# (long|elsewhere)\b")
ELSEWHERE = re.compile(r"KDTOOL_DATA|--(?:data|unlabelled)[ =](?!digits\b)|--(?:weights|pretrained|download|device)\b")
"""What only blocks have that need more than there is on every machine."""

RECIPE = """
[[step]]
name = "teacher"
run = "teacher kdtool:lenet-5 --data digits --epochs 1"
"""
"""The recipe.toml of pages that run one without showing it."""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    code: str
    line: int
    title: str | None
    mark: str | None

    @property
    def elsewhere(self) -> bool:
        """Whether it needs data, weights or a device that not every machine has."""
        return self.mark == "elsewhere" or bool(ELSEWHERE.search(self.code))


@dataclass(frozen=True)
class Pipe:
    """The commands of one line, without the word kdtool, and the file that the last one's stdout goes to."""

    commands: tuple[tuple[str, ...], ...]
    target: str | None


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    found = []
    for match in FENCE.finditer(text):
        code = textwrap.dedent(match["code"])
        title = re.search(r'title="([^"]+)"', match["about"])
        line = text.count("\n", 0, match.start("code")) + 1
        mark = match["mark"] or next(iter(MARK.findall(code.partition("\n")[0])), None)
        found.append(Block(match["language"], code, line, title and title[1], mark))
    return found


def pipes(code: str) -> list[Pipe]:
    """Return the lines of a shell block that begin with ``kdtool``; each variable of the shell is replaced by 1."""
    lines = re.sub(r"\\\n\s*", " ", code).splitlines()
    return [_pipe(line) for line in map(_typed, lines) if line.startswith("kdtool ")]


def _typed(line: str) -> str:
    return line.strip().removeprefix("$ ")


def _pipe(line: str) -> Pipe:
    lexer = shlex.shlex(re.sub(r"\$\w+", "1", line), posix=True, punctuation_chars="|>")
    lexer.whitespace_split = True
    words, _, target = " ".join(map(shlex.quote, lexer)).partition(" '>' ")
    commands = [shlex.split(part) for part in words.split(" '|' ")]
    assert all(words[0] == "kdtool" for words in commands), f"{line}: only kdtool commands can be run here"
    return Pipe(tuple(tuple(words[1:]) for words in commands), target or None)


class Page:
    """A page whose blocks are run in one directory."""

    def __init__(self, path: Path, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.path, self.directory, self.patch = path, directory, patch
        self.name = path.relative_to(ROOT).as_posix()
        self.blocks = blocks(path.read_text(encoding="utf-8"))
        self.module = ModuleType(f"page_{path.stem.lower().replace('-', '_')}")
        patch.chdir(directory)
        patch.syspath_prepend(directory)
        patch.setitem(sys.modules, self.module.__name__, self.module)
        (directory / "recipe.toml").write_text(RECIPE)
        kept = shutil.ignore_patterns("*.study", "*.run", "*.pt", "__pycache__")
        if path.parent.parent.name == "examples":
            shutil.copytree(path.parent, directory, ignore=kept, dirs_exist_ok=True)
        elif path.parent in (ROOT, ROOT / "examples"):
            shutil.copytree(ROOT / "examples", directory / "examples", ignore=kept)
        for project in directory.glob("pyproject.toml"):
            self.install(project.read_text())

    def run(self, *, long: bool) -> None:
        """Run all blocks, the long ones only if ``long`` is true."""
        for block in self.blocks:
            place = f"{self.name}:{block.line}"
            if block.title:
                (self.directory / block.title).write_text(block.code)
            if block.language == "python":
                self.python(block, place)
            elif block.language == "toml":
                self.install(block.code)
            elif block.language in SHELLS:
                for pipe in pipes(block.code):
                    self.shell(pipe, place, block, long=long)

    def shell(self, pipe: Pipe, place: str, block: Block, *, long: bool) -> None:
        """Run a line, or only check it.

        A long line is run only if its input files exist: the block that makes them may be one that is only checked.
        """
        if block.mark or block.elsewhere:
            has_inputs = self.check(pipe, place)
            # tests/test_end_to_end.py runs the demo.
            if block.elsewhere or not long or not has_inputs or pipe.commands[0][0] == "demo":
                return
        self.execute(pipe, place)

    def python(self, block: Block, place: str) -> None:
        """Execute a block; of a marked one, check only that it compiles and that what it imports is there."""
        tree = ast.parse(block.code, place)
        if block.mark:
            imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
            tree = ast.Module(list(imports), [])
        exec(compile(tree, place, "exec", dont_inherit=True), self.module.__dict__)

    def install(self, text: str) -> None:
        """Install the methods of a pyproject.toml; their module is the page, unless its file is there."""
        project = tomllib.loads(text).get("project", {})
        groups = {group: points for group, points in project.get("entry-points", {}).items() if group != "kdtool"}
        for group, points in groups.items():
            for name, value in points.items():
                module = value.partition(":")[0]
                if not (self.directory / f"{module}.py").exists():
                    self.patch.setitem(sys.modules, module, self.module)
                metadata = self.directory / f"{module}-1.dist-info"
                metadata.mkdir(exist_ok=True)
                (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
                (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
        entry_points.installed.cache_clear()

    def execute(self, pipe: Pipe, place: str) -> None:
        """Run the commands of a line, each with the stdout of the one before."""
        text: str | None = None
        for words in pipe.commands:
            text = self.invoke(words, place, text)
        if pipe.target and text is not None:
            (self.directory / pipe.target).write_text(text)

    def check(self, pipe: Pipe, place: str) -> bool:
        """Check the commands of a line as a chain is checked; return whether the files that they read exist."""
        missing: list[Path] = []

        def check_steps(steps: Sequence[chain.ChainStep], words: Sequence[str] = (), *, debug: bool = False) -> None:
            chain.plan(steps)
            for step in steps[:1]:
                if step.slow_check is not None:
                    step.slow_check()

        def check_file(path: Path) -> None:
            if not path.exists():
                missing.append(path)

        with self.patch.context() as patch:
            patch.setattr(chain, "run_chain", check_steps)
            # Imported here before the patch: a module that is first imported during it would keep the stand-in.
            for module in (chain, distill, run):
                patch.setattr(module, "check_file", check_file)
            patch.setattr(chain, "check_target", _check_suffix)
            for number, words in enumerate(pipe.commands):
                self.invoke(words, place, "piped.pt" if number else None)
        return {*missing} <= {Path("piped.pt")}

    def invoke(self, words: Sequence[str], place: str, stdin: str | None) -> str:
        """Run one command in this process and return its stdout."""
        paths = [path for word in words for path in (sorted(glob.glob(word)) if "?" in word else []) or [word]]
        result = CliRunner().invoke(cli, paths, input=stdin)
        assert result.exit_code == 0, f"{place}: kdtool {shlex.join(words)}\n{result.output}"
        return result.stdout


def _check_suffix(output: Path, suffix: str, **_: Any) -> None:
    assert output.suffix == suffix, f"-o {output}: the name must end in {suffix}"


Open = Callable[[Path], Page]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    yield lambda path: Page(path, tmp_path, monkeypatch)
    entry_points.installed.cache_clear()


def has_long_commands(path: Path) -> bool:
    shells = [block for block in blocks(path.read_text(encoding="utf-8")) if block.language in SHELLS]
    return any(block.mark == "long" and not block.elsewhere and pipes(block.code) for block in shells)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


LARGE = (
    *("budget", "clusters", "compress", "little-data", "many-gpus", "one-method", "onnx", "other-formats"),
    *("own-network", "recipes", "studies"),
)
SLOW = {"docs/index.md", "examples/distill-vs-prune/README.md", *(f"docs/guides/{page}.md" for page in LARGE)}
"""Pages of many trainings."""


@pytest.mark.parametrize(
    "path", [pytest.param(page, marks=[pytest.mark.slow] if name(page) in SLOW else []) for page in PAGES], ids=name
)
def test_every_block_works(path: Path, opened: Open) -> None:
    opened(path).run(long=False)


@pytest.mark.slow
@pytest.mark.parametrize("path", [page for page in PAGES if has_long_commands(page)], ids=name)
def test_every_long_block_works(path: Path, opened: Open) -> None:
    opened(path).run(long=True)


@pytest.mark.parametrize("path", [page for page in PAGES if "docs" not in page.parts], ids=name)
def test_every_link_leads_to_a_file(path: Path) -> None:
    """The links of docs/ are checked by ``make docs``."""
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_a_line_is_split_as_a_shell_does() -> None:
    code = (
        "$ kdtool prune a.pt --ratio 0.5 \\\n    --epochs 1 | kdtool export  # in two\ncd x\nkdtool run r.toml > o.json"
    )

    assert pipes(code) == [
        Pipe((("prune", "a.pt", "--ratio", "0.5", "--epochs", "1"), ("export",)), None),
        Pipe((("run", "r.toml"),), "o.json"),
    ]
    assert pipes("kdtool distill t-$N.pt --temperature '4->1'")[0].commands == (
        ("distill", "t-1.pt", "--temperature", "4->1"),
    )


def test_a_block_says_what_it_needs() -> None:
    text = "```sh\n# long: why\nkdtool x\n```\n<!-- elsewhere: why -->\n```sh\nkdtool x\n```\n```sh\nkdtool x\n```"

    assert [(block.mark, block.line) for block in blocks(text)] == [("long", 2), ("elsewhere", 7), (None, 10)]
    assert Block("bash", "kdtool teacher x --data cifar10", 1, None, None).elsewhere
    assert not Block("bash", "kdtool teacher x --data digits", 1, None, None).elsewhere
