"""The contract of a pruner, and what pruners share.

A `Pruner` removes weights of a trained network and retrains the rest. `MaskPruner` sets single weights to zero by their
scores (`masks`); the network keeps its shape. `ChannelPruner` removes whole channels, so that the network gets smaller,
until a fraction of its parameters, MACs, channels or latency (`latency`) is gone. The methods, which compute the
scores, are plugins; nothing here imports one.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
