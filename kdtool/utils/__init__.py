"""Helpers that know nothing of networks: files, tensor files, seeds, progress, statistics and number formats.

Every other package may import them; they import `kdtool.errors` alone.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
