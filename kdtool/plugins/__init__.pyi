from .options import (
    Options as Options,
)
