from .adapters import (
    unadapted as unadapted,
)
from .pairs import (
    Pair as Pair,
)
from .pairs import (
    last_stage_pair as last_stage_pair,
)
from .pairs import (
    match_stages as match_stages,
)
from .pairs import (
    pairs_of as pairs_of,
)
from .segments import (
    Part as Part,
)
from .segments import (
    cuttable as cuttable,
)
from .segments import (
    parts_of as parts_of,
)
from .taps import (
    Tap as Tap,
)
from .taps import (
    stage_taps as stage_taps,
)
from .taps import (
    tap as tap,
)
