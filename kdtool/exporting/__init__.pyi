from .latency import (
    measure_latency as measure_latency,
)
