from .adapters import (
    Parts as Parts,
    unadapted as unadapted,
)
from .classifier import (
    classifier_weight as classifier_weight,
)
from .pairs import (
    Pair as Pair,
    last_stage_pair as last_stage_pair,
    match_stages as match_stages,
    pairs_of as pairs_of,
)
from .preactivation import (
    before_activation as before_activation,
)
from .segments import (
    Part as Part,
    cuttable as cuttable,
    parts_of as parts_of,
    watched as watched,
)
from .taps import (
    Tap as Tap,
    stage_taps as stage_taps,
    tap as tap,
)
