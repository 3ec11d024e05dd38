"""Charts and pictures, drawn by matplotlib as SVG or PNG.

`chart` is the plain data of a chart, so that a study can be charted and tested without drawing. `svg` draws charts and
the curves of a training, `gates` draws gated searches, and `grid` arranges images. All drawings are made without pyplot
and without a screen. The same numbers give the same SVG text. matplotlib is imported when something is drawn.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
