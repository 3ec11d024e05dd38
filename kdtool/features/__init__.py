"""Where the layers of a network can be watched, paired with another network's, and cut.

A `Tap` is a layer whose output is watched; `stage_taps` finds the ends of the stages of any network. A `Pair` is a tap
of the student and the tap of the teacher that it is compared with, and an adapter gives the student's output the shape
of the teacher's. A `Segment` runs a network from one tap to the next, for methods that train stage by stage. What a
network is made of is found by running it on a test image, so that no architecture has to be known by name.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
