from .masks import (
    apply_masks as apply_masks,
)
from .pruner import (
    numbered as numbered,
)
