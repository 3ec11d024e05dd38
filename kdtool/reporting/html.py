"""Pieces of a HTML page that needs nothing but itself: no network, no scripts."""

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
    """Return a whole page; the parts are HTML."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts])
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    )


def heading(text: str, level: int = 2) -> str:
    """Return a heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{escape(text)}</p>"


def facts(rows: Iterable[tuple[str, Any]]) -> str:
    """Return names and values below each other; what is None or empty is left out."""
    shown = [(name, shown_value(name, value)) for name, value in rows]
    lines = [f"<tr><th>{escape(_title(name))}</th><td>{escape(text)}</td></tr>" for name, text in shown if text]
    return f"<table><tbody>{''.join(lines)}</tbody></table>"


def table(rows: Sequence[Mapping[str, Any]], leave_out: Iterable[str] = ()) -> str:
    """Return rows as a table with a column for each key that holds a text or a number somewhere.

    A number with an interval, ``error`` with ``error_low`` and ``error_high``, is shown with half of its width.
    """
    keys = dict.fromkeys(key for row in rows for key, value in row.items() if _plain(value))
    ends = {f"{key}_{end}" for key in keys for end in ("low", "high")}
    shown = [key for key in keys if key not in ends and key not in leave_out]
    kinds = {key: _kind(rows, key) for key in shown}
    head = "".join(f"<th{kinds[key]}>{escape(_title(key))}</th>" for key in shown)
    body = "".join(
        f"<tr>{''.join(f'<td{kinds[key]}>{escape(_shown(row, key))}</td>' for key in shown)}</tr>" for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def commands(lines: Iterable[tuple[str, str]]) -> str:
    """Return commands, each with a remark, one below the other."""
    items = (f"<li><code>{escape(line)}</code>{_remark(remark)}</li>" for line, remark in lines)
    return f"<ol>{''.join(items)}</ol>"


def folded(title: str, content: str) -> str:
    """Return HTML that shows when a reader asks for it."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def figure(svg: str, caption: str) -> str:
    """Return a figure of our own drawing; ``svg`` becomes a part of the page."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def picture(svg: bytes, caption: str) -> str:
    """Return a picture of anyone's drawing, as an image: what might be in it besides does not run there."""
    data = base64.b64encode(svg).decode()
    image = f'<img alt="{escape(caption)}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _title(key: str) -> str:
    return key.replace("_", " ")


def _remark(text: str) -> str:
    return f"<br><small>{escape(text)}</small>" if text else ""


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _kind(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    numbers = all(isinstance(row.get(key), int | float | None) for row in rows)
    return ' class="number"' if numbers else ""


def _shown(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not _plain(value):
        return ""
    text = shown_value(key, value)
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    if isinstance(low, float) and isinstance(high, float) and high > low:
        half = (high - low) / 2
        text += f" ± {half:,.0f}" if half >= 100 else f" ± {half:.2g}"
    return text
