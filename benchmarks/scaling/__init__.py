"""How many workers, how much database, broker and storage a number of models a day needs.

`measure` counts what one run of the real service costs, `costs` reads the times of records,
`model` simulates the service, `sizing` searches how many workers it takes, `report` tells.
"""

HONEST = "honest"  # the model of the canary kit whose way is counted
STAGES = ("receive", "inspect", "detect", "decide", "purify", "publish")
