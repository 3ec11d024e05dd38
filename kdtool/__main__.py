"""``python -m kdtool`` is ``kdtool``."""

from kdtool.cli.main import main

main()
