from .sources import (
    check_name as check_name,
)
from .sources import (
    create_like as create_like,
)
