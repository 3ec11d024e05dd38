"""Recognise by their names which plain attributes of a module hold widths."""

from __future__ import annotations

import re

NO_WIDTH = re.compile(
    r"num_(?!features|channels|out_features|in_chs|hidden|1x1)|size|patch|window|stride|kernel|depth|(?<!dim_)heads?$|head_splits|group"
    r"|resolution|area|token|level|block|radix|ind(ex|ices)|idx|dilat|padding|classes|in_chans|stage|height|grid|repeat"
    r"|rank|card|expert|layers|length|offset|stop|start|permut|axis|shift|spatial|channel_dim|chunk_dim|reps|branch"
    r"|^[khwnst]$|^ws$|^bs$|dims?_spatial|prefix|ends$",
    re.IGNORECASE,
)
"""Names of attributes that are no widths, even if ``WIDTH`` matches."""

WIDTH = re.compile(
    r"dim|chan|chs|feat|embed|planes|width|hidden|^d_inner$|normalized_shape|^d$|^dh$|^inc$|split|_c$|^head_size$",
    re.IGNORECASE,
)
"""Names of attributes that may be widths."""


def is_width(name: str, value: int) -> bool:
    """Return whether an attribute is a width: by its name, and because it is larger than 1."""
    return value > 1 and bool(WIDTH.search(name)) and not NO_WIDTH.search(name)
