"""Studies: many commands that one recipe describes, each of which is run once.

A `recipe` is a TOML file of steps and of a matrix of values; it is unrolled into commands. `runner` runs each command
in a process of its own. `record` remembers in ``study.json`` which inputs made which checkpoint, so that a study that
was stopped or changed runs only what is missing; `start` removes an old result when its command starts. `results`
collects the rows and the means over seeds, `comparisons` the pairs, `alike` what was not trained alike, and `charts`
turns them into charts for the report.
"""
