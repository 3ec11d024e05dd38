"""One training loop, and the durable run around it.

`run` is what a strategy works with: it names phases, each of which `plan` describes, `loop` trains and `phase` keeps on
disk. `objective` is the contract of a loss, `callback` that of what else takes part in a training. Networks that do not
learn (`frozen_network`) are run once for each image and view, and `output_cache` keeps their outputs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
