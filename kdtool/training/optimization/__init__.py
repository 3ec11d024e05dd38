"""What a step does to the weights: the optimiser and its rates, clipping, averaging and stochastic depth."""
