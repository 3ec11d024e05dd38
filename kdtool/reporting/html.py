"""The elements of an HTML page that is complete in one file: no network, no scripts."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from kdtool.utils.formatting import shown_value

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 76rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd }
h3 { font-size: 1rem; margin-top: 1.5rem }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; white-space: nowrap }
thead th { border-bottom: 1px solid #999 } tbody tr:hover { background: #f5f5f5 }
.number { text-align: right }
.wide { overflow-x: auto }
pre, code { font: .8rem/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere }
small, figcaption { color: #666 }
figure { margin: 1rem 0 } figure svg, figure img { max-width: 100%; height: auto }
li { margin-bottom: .4rem }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """Return a complete page; ``parts`` are HTML, ``title`` is plain text."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts])
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    )


def heading(text: str, level: int = 2) -> str:
    """Return a heading of a level from 1 to 6."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{escape(text)}</p>"


def facts(rows: Iterable[tuple[str, Any]]) -> str:
    """Return a table with a row for each name and value; values that are None or empty are left out."""
    shown = [(name, shown_value(name, value)) for name, value in rows]
    lines = [f"<tr><th>{escape(_title(name))}</th><td>{escape(text)}</td></tr>" for name, text in shown if text]
    return f"<table><tbody>{''.join(lines)}</tbody></table>"


def table(rows: Sequence[Mapping[str, Any]], leave_out: Iterable[str] = ()) -> str:
    """Return a table with a column for each key that has a text or a number in some row.

    A number with an interval, such as ``error`` with ``error_low`` and ``error_high``, is shown as ``number ± half the
    width``.
    """
    keys = dict.fromkeys(key for row in rows for key, value in row.items() if _is_plain(value))
    ends = {f"{key}_{end}" for key in keys for end in ("low", "high")}
    shown = [key for key in keys if key not in ends and key not in leave_out]
    classes = {key: _number_class(rows, key) for key in shown}
    head = "".join(f"<th{classes[key]}>{escape(_title(key))}</th>" for key in shown)
    body = "".join(
        f"<tr>{''.join(f'<td{classes[key]}>{escape(_cell_text(row, key))}</td>' for key in shown)}</tr>" for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def commands(lines: Iterable[tuple[str, str]]) -> str:
    """Return a numbered list of commands, each with its remark (which may be empty)."""
    items = (f"<li><code>{escape(line)}</code>{_remark(remark)}</li>" for line, remark in lines)
    return f"<ol>{''.join(items)}</ol>"


def folded(title: str, content: str) -> str:
    """Return HTML that is hidden until the reader opens it; ``content`` is HTML."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def figure(svg: str, caption: str) -> str:
    """Return a figure that kdtool drew; ``svg`` becomes a part of the page."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def picture(svg: bytes, caption: str) -> str:
    """Return a picture from any origin, embedded as an image, so that a script in the SVG does not run."""
    data = base64.b64encode(svg).decode()
    image = f'<img alt="{escape(caption)}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _title(key: str) -> str:
    return key.replace("_", " ")


def _remark(text: str) -> str:
    return f"<br><small>{escape(text)}</small>" if text else ""


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _number_class(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    numbers = all(isinstance(row.get(key), int | float | None) for row in rows)
    return ' class="number"' if numbers else ""


def _cell_text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not _is_plain(value):
        return ""
    text = shown_value(key, value)
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    if isinstance(low, float) and isinstance(high, float) and high > low:
        half = (high - low) / 2
        text += f" ± {half:,.0f}" if half >= 100 else f" ± {half:.2g}"
    return text
