"""A survey of many networks: which edits of kdtool work on which networks, and whether their results can be used."""
