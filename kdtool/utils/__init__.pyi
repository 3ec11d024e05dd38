from .files import (
    gzip_bytes as gzip_bytes,
)
