from .conversion import (
    digest as digest,
)
from .names import (
    other_task as other_task,
)
from .size import (
    macs as macs,
)
from .size import (
    macs as macs,
)
from .sources import (
    check_name as check_name,
    create_like as create_like,
)
from .used_weights import (
    computed_weights as computed_weights,
    keep_used_weights as keep_used_weights,
)
