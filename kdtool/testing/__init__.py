"""Checks for the tests of plugins: `check_distiller`, `check_pruner` and one for each other kind of method.

Each check takes a method or its class and raises an `AssertionError` that says what the method does wrong. kdtool's own
methods pass the same checks. `checks` has one function for each kind, `losses` and `samples` are the checks of a
distiller's loss on small random batches, and `require` raises the errors.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
