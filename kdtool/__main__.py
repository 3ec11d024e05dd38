"""Run the command line with ``python -m kdtool``."""

from kdtool.cli.main import main

main()
