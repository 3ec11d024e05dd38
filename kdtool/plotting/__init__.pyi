from .gates import (
    draw_gates as draw_gates,
    draw_search as draw_search,
)
