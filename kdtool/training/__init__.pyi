from .callback import (
    Guide as Guide,
)
from .recalibrate import (
    recalibrate_batchnorm as recalibrate_batchnorm,
)
from .student import (
    Auxiliary as Auxiliary,
)
from .zeros import (
    prunable as prunable,
)
from .zeros import (
    sparsity as sparsity,
)
