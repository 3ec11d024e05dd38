"""Gates on the channels of a network, which a search closes and which are then removed for good.

A gate multiplies a channel wherever a layer reads it, so gates and weights can be trained together, and a closed gate
is a channel that nothing reads. `gated` finds where gates can stand and runs a network through them, `connections`
gives each layer of a dense block its own gates, `costs` counts what a network costs with some gates closed, `budget`
chooses gates to close, and `remove` makes the smaller network. `rescale` and `summary` adjust the weights of the result
and describe it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
