from .history_entry import (
    HistoryEntry as HistoryEntry,
)
from .recalibrate import (
    recalibrate_batchnorm as recalibrate_batchnorm,
)
from .student import (
    Auxiliary as Auxiliary,
)
from .zeros import (
    prunable as prunable,
    sparsity as sparsity,
    unprunable as unprunable,
)
