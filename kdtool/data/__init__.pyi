from .raw import (
    RawData as RawData,
)
from .raw import (
    RawSplit as RawSplit,
)
