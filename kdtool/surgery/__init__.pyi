from . import (
    gates as gates,
)
from .channels.groups import (
    Scores as Scores,
)
from .channels.importance import (
    filters as filters,
    over_filters as over_filters,
    over_norms as over_norms,
    relative as relative,
    sum_over_filters as sum_over_filters,
    sum_over_parameters as sum_over_parameters,
)
from .channels.remove import (
    remove_channels as remove_channels,
)
from .compound import (
    reach_budget as reach_budget,
)
from .depth.drop import (
    drop_blocks as drop_blocks,
)
from .depth.stages import (
    stages as stages,
)
from .layer_options import (
    LayerOptions as LayerOptions,
)
from .refiner import (
    InheritingRefiner as InheritingRefiner,
)
from .width.chosen_layers import (
    widths_of as widths_of,
)
from .width.halve import (
    halve_widths as halve_widths,
)
