"""How a step fits into the memory of a device: a run asks here before it trains, and a forecast too.

It stands apart from `kdtool.training.foresight`, which imports the run.
"""
