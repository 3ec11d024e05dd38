from .baseline import (
    RelativeLatency as RelativeLatency,
)
from .exporter import (
    check_measurable as check_measurable,
)
from .latency import (
    measure_calls as measure_calls,
    measure_latency as measure_latency,
)
from .measurement import (
    measure_file as measure_file,
    measured_elsewhere as measured_elsewhere,
    read_measurements as read_measurements,
)
from .onnx_operators import (
    OPERATORS as OPERATORS,
    operators as operators,
)
from .providers import (
    PROVIDERS as PROVIDERS,
)
from .sessions import (
    check_provider as check_provider,
    cpu_name as cpu_name,
)
