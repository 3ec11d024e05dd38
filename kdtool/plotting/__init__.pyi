from .gates import (
    draw_gates as draw_gates,
)
from .gates import (
    draw_search as draw_search,
)
