"""What kdtool does with many networks: which of its edits work on which, and what their results are good for."""
