from . import (
    data as data,
    distillation as distillation,
    exporting as exporting,
    features as features,
    models as models,
    plotting as plotting,
    plugins as plugins,
    pruning as pruning,
    surgery as surgery,
    testing as testing,
    training as training,
    utils as utils,
)
from .api import (
    compare as compare,
    compress as compress,
    distill as distill,
    evaluate as evaluate,
    export as export,
    inspect as inspect,
    load as load,
    measure as measure,
    networks as networks,
    new_plugin as new_plugin,
    prune as prune,
    refine as refine,
    report as report,
    run_study as run_study,
    teacher as teacher,
    trust as trust,
    watch as watch,
)
from .data.dataset import (
    Dataset as Dataset,
)
from .distillation.distiller import (
    Distiller as Distiller,
    LossDistiller as LossDistiller,
)
from .errors import (
    Error as Error,
    UsageError as UsageError,
)
from .exporting.exporter import (
    Exporter as Exporter,
)
from .models.architecture import (
    Architecture as Architecture,
    Network as Network,
)
from .models.checkpoint import (
    Checkpoint as Checkpoint,
)
from .models.source import (
    Source as Source,
)
from .plugins.budget import (
    Budget as Budget,
)
from .plugins.hookspecs import (
    hookimpl as hookimpl,
)
from .plugins.options import (
    option as option,
)
from .plugins.points import (
    Points as Points,
)
from .plugins.registry import (
    make as make,
    nested as nested,
)
from .plugins.schedule import (
    Schedule as Schedule,
)
from .pruning.pruner import (
    ChannelPruner as ChannelPruner,
    MaskPruner as MaskPruner,
    Pruner as Pruner,
)
from .surgery.refiner import (
    Refiner as Refiner,
)
from .training.callback import (
    Callback as Callback,
)
from .training.objective import (
    Objective as Objective,
)
from .training.run import (
    Run as Run,
)
from .training.step import (
    Step as Step,
)
