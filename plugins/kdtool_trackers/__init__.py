"""The built-in trackers, one per file: programs that show how a training goes."""
