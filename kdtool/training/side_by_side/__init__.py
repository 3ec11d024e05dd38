"""Trainings that do not depend on each other, side by side on a Ray cluster.

`placement` has the options that say where. `workers` hands the trainings of one run to the cluster, and `task` is what
a worker does with one of them.
"""
