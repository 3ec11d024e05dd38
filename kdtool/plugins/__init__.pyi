from .idle_options import (
    refuse_idle as refuse_idle,
)
from .options import (
    Options as Options,
)
from .own_code import (
    function_at as function_at,
)
from .tracker import (
    Tracked as Tracked,
    Tracker as Tracker,
)
