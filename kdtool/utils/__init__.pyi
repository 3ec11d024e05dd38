from .classification import (
    deciding as deciding,
)
from .files import (
    atomic as atomic,
    cache_directory as cache_directory,
    gzip_bytes as gzip_bytes,
    scratch_folder as scratch_folder,
)
from .formatting import (
    markdown_code as markdown_code,
    markdown_text as markdown_text,
    printable as printable,
)
from .keywords import (
    as_keywords as as_keywords,
    read_keywords as read_keywords,
)
from .processes import (
    decided as decided,
    gathered as gathered,
    together as together,
)
from .progress import (
    progress_bar as progress_bar,
)
from .tensor_files import (
    safetensors_bytes as safetensors_bytes,
)
from .tensor_folder import (
    write_folder as write_folder,
)
