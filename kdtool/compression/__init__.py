"""From a budget to a student: `kdtool compress`.

Methods of all kinds propose candidates and are sized to the budget by measuring files whose weights do not matter
(`proposals`, `sizing`, `costs`). Candidates are trained for a short time, the best of them longer (`schedule`,
`trials`); the best are measured a second time (`measuring_again`), and the winner is trained in full and exported
(`winner`, `exported_winner`). What was tried is a frontier of accuracy against cost (`frontier`). The package stands
above `commands`, whose steps it arranges; nothing here knows a method by name.
"""
