from .layers import (
    layers_to_mask as layers_to_mask,
)
from .masks import (
    apply_masks as apply_masks,
    cubic_at as cubic_at,
    dense_layers as dense_layers,
)
from .pruner import (
    numbered as numbered,
)
from .sizing import (
    round_to as round_to,
)
