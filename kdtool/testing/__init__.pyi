from .checks import (
    check_dataset as check_dataset,
)
from .checks import (
    check_distiller as check_distiller,
)
from .checks import (
    check_exporter as check_exporter,
)
from .checks import (
    check_options as check_options,
)
from .checks import (
    check_pruner as check_pruner,
)
from .checks import (
    check_refiner as check_refiner,
)
from .checks import (
    check_source as check_source,
)
from .losses import (
    check_gradients as check_gradients,
)
from .losses import (
    check_loss as check_loss,
)
from .require import (
    require as require,
)
from .samples import (
    sample_step as sample_step,
)
