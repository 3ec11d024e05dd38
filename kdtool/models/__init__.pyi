from .sources import (
    check_name as check_name,
    create_like as create_like,
)
