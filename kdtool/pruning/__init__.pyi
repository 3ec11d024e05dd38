from .masks import (
    apply_masks as apply_masks,
    dense_layers as dense_layers,
)
from .pruner import (
    numbered as numbered,
)
