from .checkpoint import (
    content_of as content_of,
)
from .conversion import (
    behaviour as behaviour,
    digest as digest,
)
from .hooks import (
    plain_attention as plain_attention,
)
from .names import (
    other_task as other_task,
)
from .quantisation.fake import (
    quantiser_of as quantiser_of,
    without_quantiser as without_quantiser,
)
from .quantisation.integers import (
    integer_network as integer_network,
)
from .quantisation.training import (
    quantisation_of as quantisation_of,
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
