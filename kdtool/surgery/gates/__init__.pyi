from .budget import (
    check_budget as check_budget,
)
from .budget import (
    close_until as close_until,
)
from .budget import (
    keep_last as keep_last,
)
from .budget import (
    minimal_gates as minimal_gates,
)
from .costs import (
    GateCosts as GateCosts,
)
from .gated import (
    Gated as Gated,
)
from .gated import (
    gate_channels as gate_channels,
)
from .remove import (
    remove_closed as remove_closed,
)
from .remove import (
    with_fresh_weights as with_fresh_weights,
)
from .rescale import (
    scaled_like as scaled_like,
)
from .summary import (
    gate_map as gate_map,
)
