"""The command line, built on click.

``main`` holds the group, ``grammar`` cuts a command line into steps, ``command`` and ``method_options`` turn a method's
declared options into click's, ``chain`` checks all steps before it runs the first, ``output`` formats results. The
commands themselves are in ``commands``, one module each. This package parses, calls `kdtool.api` and prints; it does
nothing that cannot be done from Python. It imports no torch before a step runs, so that help and completion are fast.
"""
