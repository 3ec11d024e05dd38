"""The built-in teachers."""
