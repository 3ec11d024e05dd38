"""Data sets: what a plugin returns, how it is split and augmented, and the batches that a network sees.

A plugin is a `Dataset` and returns `RawData`. `opening.open_data` turns that into a `Data` with a train, a val and
perhaps a test `Split`, whose batches are normalised float32 images. Every split, subset and augmented view is a pure
function of seeds and indices, so that a checkpoint needs only a `DataSpec` to open the same images again. Small
images are kept in memory, large ones are read from their files for each batch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
