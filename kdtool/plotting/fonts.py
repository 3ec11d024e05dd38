"""The fonts of pictures that have pixels in place of text."""

from __future__ import annotations

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
