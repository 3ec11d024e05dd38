"""Cut the tensors of a network to the channels it keeps, and make its attributes agree with the new sizes.

`tensors` cuts parameters and buffers in place, as a flow (`kdtool.surgery.tracing`) says or, where the flow knows
nothing, by their sizes. `kept_indices` chooses which indices of a dimension stay, and `fixed_dims` finds the dimensions
that must not change because the classes or the images set them. Networks also store widths as plain numbers, such as
the width of an attention head: `naming` recognises these attributes, and `attributes` sets them.
"""
