"""The built-in distillers.

The module of a method has the method's name and cites the paper. It holds the class that the entry point names and the
functions of its equation. The other modules hold what several methods share (`relations`, `mean_of`, `only_logits`) and
what a method trains beside its student (`exits`, `fusion`, `peers`), or the parts of its search (`gated_options`,
`gated_search`, `proximal`).
"""
