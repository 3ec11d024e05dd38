from . import (
    data as data,
)
from . import (
    distillation as distillation,
)
from . import (
    exporting as exporting,
)
from . import (
    features as features,
)
from . import (
    models as models,
)
from . import (
    plotting as plotting,
)
from . import (
    plugins as plugins,
)
from . import (
    pruning as pruning,
)
from . import (
    surgery as surgery,
)
from . import (
    testing as testing,
)
from . import (
    training as training,
)
from . import (
    utils as utils,
)
from .api import (
    compare as compare,
)
from .api import (
    distill as distill,
)
from .api import (
    evaluate as evaluate,
)
from .api import (
    export as export,
)
from .api import (
    inspect as inspect,
)
from .api import (
    load as load,
)
from .api import (
    prune as prune,
)
from .api import (
    refine as refine,
)
from .api import (
    report as report,
)
from .api import (
    run_study as run_study,
)
from .api import (
    teacher as teacher,
)
from .data.dataset import (
    Dataset as Dataset,
)
from .distillation.distiller import (
    Distiller as Distiller,
)
from .distillation.distiller import (
    LossDistiller as LossDistiller,
)
from .errors import (
    Error as Error,
)
from .errors import (
    UsageError as UsageError,
)
from .exporting.exporter import (
    Exporter as Exporter,
)
from .models.architecture import (
    Architecture as Architecture,
)
from .models.architecture import (
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
from .plugins.registry import (
    make as make,
)
from .plugins.registry import (
    nested as nested,
)
from .plugins.schedule import (
    Schedule as Schedule,
)
from .pruning.pruner import (
    ChannelPruner as ChannelPruner,
)
from .pruning.pruner import (
    MaskPruner as MaskPruner,
)
from .pruning.pruner import (
    Pruner as Pruner,
)
from .surgery.refiner import (
    Refiner as Refiner,
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
