"""Checks that a plugin author runs on a method of their own: `check_distiller`, `check_pruner` and the others.

Each raises an `AssertionError` that says what the method does wrong.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
