"""One module for each command of ``kdtool``, with the command's name.

Each module holds a function ``plan``, which checks the options and returns a `kdtool.cli.chain.ChainStep`, and the
click command ``command``. `kdtool.cli.main` imports a module when its command is used, so that ``kdtool --help``
imports none.
"""
