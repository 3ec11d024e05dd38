"""The report: one HTML page about checkpoints, runs and studies.

`sources` reads what a report describes from the disk, `page` decides what the page says about it, and `html` writes the
elements. The page is one file that needs no network and no scripts, so that it can be sent and opened anywhere. Text
from a checkpoint or a run is never taken for HTML.
"""
