"""Make a network shallower: leave out residual or dense blocks of its stages.

Which blocks may go is decided by what the network computes, not by the names of its classes, so that it works for
networks from any source. `observe` runs the network once and records what each block receives and returns, `stages`
finds the stages in these observations, and `verify` checks that the network applies its blocks one after another and
does nothing else with them. `drop` leaves blocks out of a copy and cuts the layers that read the channels of dense
blocks.
"""
