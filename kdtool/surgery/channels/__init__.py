"""Remove whole channels, by groups that have to be removed together.

`graph` traces a network with Torch-Pruning, whose private names are all in `torch_pruning_adapter`. `groups` gathers
from that graph which channels of which layers go together, `importance` combines scores over the layers of a group,
`selection` chooses how many channels each group loses, and `remove` cuts them. A graph can be wrong, so `remove`
compares it with kdtool's own trace of the network (`kdtool.surgery.tracing`), which shows where channels go in the
computation itself; `verify` also compares outputs. Groups for which the two disagree are left as they are.
"""
