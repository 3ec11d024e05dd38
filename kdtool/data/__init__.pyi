from .classes import (
    difference as difference,
)
from .raw import (
    FilePart as FilePart,
    ImageSource as ImageSource,
    RawData as RawData,
    RawSplit as RawSplit,
    file_of as file_of,
)
