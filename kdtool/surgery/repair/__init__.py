"""Correct the layers that read removed channels, in closed form, with a few hundred images and without labels.

`network` runs the cut network once on the images and corrects one layer after the other, so that each correction sees
what the corrected layers before it return. `calls` and `products` find what a layer multiplies its weight with,
`layers` changes its parameters by the equations of `least_squares` and `statistics`, and `options` has the options that
pruners and refiners share.
"""
