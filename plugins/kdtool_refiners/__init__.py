"""The built-in refiners."""
