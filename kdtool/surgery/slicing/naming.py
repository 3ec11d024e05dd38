"""Which plain attributes of a module are widths, by their names."""

from __future__ import annotations

import re

NO_WIDTH = re.compile(
    r"num_(?!features|channels|out_features|in_chs|hidden|1x1)|size|patch|window|stride|kernel|depth|(?<!dim_)heads?$|head_splits|group"
    r"|resolution|area|token|level|block|radix|ind(ex|ices)|idx|dilat|padding|classes|in_chans|stage|height|grid|repeat"
    r"|rank|card|expert|layers|length|offset|stop|start|permut|axis|shift|spatial|channel_dim|chunk_dim|reps|branch"
    r"|^[khwnst]$|^ws$|^bs$|dims?_spatial|prefix|ends$",
    re.IGNORECASE,
)
"""Names that hold no width, though they may look like one."""

WIDTH = re.compile(
    r"dim|chan|chs|feat|embed|planes|width|hidden|^d_inner$|normalized_shape|^d$|^dh$|^inc$|split|_c$|^head_size$",
    re.IGNORECASE,
)


def is_width(name: str, value: int) -> bool:
    """Return whether an attribute of that name and value is a width, by its name."""
    return value > 1 and bool(WIDTH.search(name)) and not NO_WIDTH.search(name)
