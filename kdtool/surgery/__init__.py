"""Structural edits: make the structure of a network smaller and keep the part of its weights that still fits.

Every edit works on the network that is there, whatever library it comes from, and returns a changed copy. `tracing`
finds which channels depend on which, and `slicing` cuts tensors and attributes accordingly. The edits stand on these
two: `depth` leaves out blocks, `width` makes all layers narrower, `channels` removes the least important channels,
`gates` learns which channels to remove, and `compound` combines depth and width to meet a budget. `repair` corrects the
layers that read what was removed. `refiner` is the contract of the plugins that make structures with these edits.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
