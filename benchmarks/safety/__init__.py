"""Attempts to break kdtool: files that were changed, and systems that fail."""
