"""Pictures that have pixels in place of text, and their fonts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdtool.utils.files import atomic

FALLBACKS = (
    *("Noto Sans CJK", "Source Han Sans", "WenQuanYi"),  # Linux
    *("Hiragino Sans", "PingFang", "Apple SD Gothic Neo"),  # macOS
    *("Yu Gothic", "Microsoft YaHei", "Malgun Gothic"),  # Windows
)
"""How the names of fonts begin that have the letters of Chinese, Japanese and Korean, which DejaVu lacks."""

REGULAR = 400
"""The weight of a font that is neither light nor bold."""


def fonts() -> list[str]:
    """Return the font of all pictures, and after it the installed ones for letters that it lacks."""
    from matplotlib.font_manager import fontManager

    others = {font.name for font in fontManager.ttflist if font.name.startswith(FALLBACKS) and font.weight == REGULAR}
    return ["DejaVu Sans", *sorted(others)]


def write_png(drawn: Callable[[], Any], path: Path) -> None:
    """Write the figure that ``drawn`` returns, with these fonts.

    Raises:
        Error: the file cannot be written.
    """
    import matplotlib

    with matplotlib.rc_context({"font.family": fonts()}), atomic(path) as temporary:
        drawn().savefig(temporary, format="png", dpi=130)
