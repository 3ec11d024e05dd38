from .classes import (
    difference as difference,
)
from .raw import (
    RawData as RawData,
    RawSplit as RawSplit,
)
