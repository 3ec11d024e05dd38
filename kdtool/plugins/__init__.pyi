from .options import (
    Options as Options,
)
from .tracker import (
    Tracked as Tracked,
    Tracker as Tracker,
)
