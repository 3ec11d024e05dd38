"""Completion in bash, zsh and fish: click's, with names that have colons, and with words that go on.

bash splits words at colons and equals signs, so that click would see ``timm : resnet`` for ``timm:resnet``. The scripts
send the line as it was typed, and get back what replaces the part behind the last colon.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from kdtool.errors import UsageError

BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' completion type value files='' word=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=()
    for completion in $(env COMP_LINE="${COMP_LINE:0:$COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \
%(complete_var)s=bash_complete $1); do
        type=${completion%%,*} value=${completion#*,}
        case $type in
            plain) COMPREPLY+=("$value") ;;
            open) compopt -o nospace; COMPREPLY+=("$value") ;;
            file | below) files=-f ;;
            dir) files=-d ;;
        esac
    done
    if [[ -n $files && ${#COMPREPLY[@]} == 0 ]]; then
        compopt -o default
    elif [[ -n $files ]]; then
        compopt -o filenames
        COMPREPLY+=($(compgen $files -- "${word##[:=]}"))
    fi
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

ZSH = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a completions described opens response
    local type key descr
    (( ! $+commands[%(prog_name)s] )) && return 1
    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \
%(complete_var)s=zsh_complete %(prog_name)s)}")
    for type key descr in ${response}; do
        case $type in
            plain) [[ $descr == _ ]] && completions+=("$key") || described+=("$key":"$descr") ;;
            open) opens+=("$key") ;;
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            below) compset -P "$key"; _path_files -f ;;
        esac
    done
    (( $#described )) && _describe -V unsorted described -U -Q
    (( $#completions )) && compadd -U -Q -V unsorted -a completions
    (( $#opens )) && compadd -U -Q -S '' -V unsorted -a opens
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

FISH = """\
function %(complete_func)s
    set -l token (commandline -t)
    for completion in (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) COMP_CWORD=$token %(prog_name)s)
        set -l item (string split -m 1 "," -- $completion)
        switch $item[1]
            case dir
                __fish_complete_directories $token
            case file
                __fish_complete_path $token
            case below
                set -l path (string replace -- $item[2] "" $token)
                __fish_complete_path $path | string replace -r '^' $item[2]
            case plain open
                echo $item[2]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class WholeWords(ShellComplete):
    """Candidates that replace the whole word: behind ``--data=`` they get that in front again."""

    variables: ClassVar[tuple[str, ...]] = ("COMP_WORDS", "COMP_CWORD")
    """What the shell's script sets: the line, and the place of the cursor."""

    def complete(self) -> str:
        """Return the candidates for the line of the shell.

        Raises:
            UsageError: the line is missing, since no shell's script asks.
        """
        if missing := [name for name in self.variables if name not in os.environ]:
            setting = f"{self.complete_var}={self.name}"
            raise UsageError(
                f"{setting}_complete: {' and '.join(missing)} not set; this is for the script of {self.name}, which "
                f"{setting}_source {self.prog_name} prints"
            )
        return super().complete()

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        """Return the candidates for the incomplete word."""
        items = super().get_completions(args, incomplete)
        name, equals, _ = incomplete.partition("=")
        if incomplete.startswith("-") and equals:
            for item in items:
                item.value = f"{name}={item.value}"
        return items


@add_completion_class
class Bash(WholeWords, BashComplete):
    """Completion in bash."""

    source_template = BASH
    variables = ("COMP_LINE",)

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor, and the incomplete one."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)[1:]
        if not words or (line[-1:].isspace() and not words[-1][-1:].isspace()):
            return words, ""
        return words[:-1], words[-1]

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        """Return the candidates without what stands in front of the last place where bash splits words."""
        items = super().get_completions(args, incomplete)
        breaks = set(os.environ.get("COMP_WORDBREAKS", ":=")) - set(" \t\n\"'")
        cut = max((incomplete.rfind(mark) for mark in breaks), default=-1) + 1
        for item in items:
            if item.value.startswith(incomplete[:cut]):
                item.value = item.value[cut:]
        return items


@add_completion_class
class Zsh(WholeWords, ZshComplete):
    """Completion in zsh."""

    source_template = ZSH

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Return the lines of a candidate; click escapes colons for `_describe`, which gets plain items alone."""
        if item.type == "plain":
            return super().format_completion(item)
        return f"{item.type}\n{item.value}\n_"


@add_completion_class
class Fish(WholeWords, FishComplete):
    """Completion in fish."""

    source_template = FISH
