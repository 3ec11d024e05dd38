from .checks import (
    check_dataset as check_dataset,
    check_distiller as check_distiller,
    check_exporter as check_exporter,
    check_options as check_options,
    check_pruner as check_pruner,
    check_refiner as check_refiner,
    check_source as check_source,
)
from .losses import (
    check_gradients as check_gradients,
    check_loss as check_loss,
)
from .require import (
    require as require,
)
from .samples import (
    sample_step as sample_step,
)
from .trackers import (
    check_tracker as check_tracker,
)
