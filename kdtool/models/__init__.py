"""Networks as plain data, and the modules that are built from that data.

An `Architecture` is the name of a base network, its options and the structural edits since; a `Network` is that and
the module it describes. A `Source` builds base networks by name, `sources` turns what a user types into a network, and
a `Checkpoint` stores a network with its history. A checkpoint holds no code: reading one builds the base network anew
and applies the recorded edits (`edits`, `modules`), so that a file from elsewhere can be opened safely. The other
modules are what every edit needs: kinds of layers, hooks, sizes, a sanity check, fresh weights.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
