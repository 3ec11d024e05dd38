"""Follow the channels of a network through its computation: run it, and see which numbers differ where.

kdtool has two tracers, because neither can replace the other:

- Torch-Pruning's dependency graph (`kdtool.surgery.channels.graph`) says which channels of which layers can only be
  removed together. It knows this from rules for the operations that autograd records. For some networks it cannot be
  built, and where the rules do not match what a network computes, it is wrong.
- The flow of this package (`trace`, which fills a `flow.Flow`) takes the output channels that each layer loses, and
  finds which input channels the layers behind it then lose. It runs the network on two images at once, whose numbers
  differ only in the lost channels. So it follows reshapes, shuffles and operations that no rule describes, but it
  cannot find groups of channels by itself.

`kdtool.surgery.channels` takes its groups from the graph and removes only those for which the flow shows the same.
`kdtool.surgery.width` removes a fixed part of all channels, which needs no groups: it works with the flow where no
graph can be built, and uses the graph only to find the strongest channels. The readers of dense blocks that
`kdtool.surgery.depth` drops are cut with the flow alone.

`differences` compares the two images, `attention` and `recurrent` handle the layers that need more than that,
`alignment` checks a cut network against its flow, and `probe_shape` chooses the size of the images.
"""
