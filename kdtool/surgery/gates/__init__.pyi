from .budget import (
    check_budget as check_budget,
    close_until as close_until,
    fill_up as fill_up,
    keep_last as keep_last,
    minimal_gates as minimal_gates,
)
from .costs import (
    GateCosts as GateCosts,
)
from .gated import (
    Gated as Gated,
    gate_channels as gate_channels,
)
from .remove import (
    remove_closed as remove_closed,
    with_fresh_weights as with_fresh_weights,
)
from .rescale import (
    scaled_like as scaled_like,
)
from .summary import (
    gate_map as gate_map,
)
