from .files import (
    gzip_bytes as gzip_bytes,
)
from .formatting import (
    printable as printable,
)
from .processes import (
    decided as decided,
    gathered as gathered,
)
