"""kdtool: make a trained vision network small.

The names that `__init__.pyi` lists are the public API for notebooks and plugins; each is imported when it is first
used, so that neither `kdtool --help` nor a plugin's import waits for torch. More public names are in the sub-packages:
`kdtool.surgery`, `kdtool.features`, `kdtool.training` and the others whose `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
