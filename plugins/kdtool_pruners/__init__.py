"""The built-in pruners, one paper per file: the scores of weights or channels, and what the paper does besides.

They are plugins like those of a third party. Masks, channel removal and retraining are in `kdtool.pruning`,
`kdtool.surgery` and `kdtool.training`.
"""
