from .raw import (
    RawData as RawData,
    RawSplit as RawSplit,
)
