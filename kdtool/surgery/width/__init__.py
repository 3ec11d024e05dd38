"""Make all layers of a network narrower by slicing each dimension to a fixed ratio of its size.

`cut` makes one narrower copy, and checks that it runs and that each layer receives the channels it was cut for.
`halve` tries such cuts, the exact ratio first, until one works: some structures only fit together at other sizes, or
with some layers left whole. `inner_layers` finds the layers inside of residual blocks, whose widths can change while
the widths between the blocks stay.
"""
