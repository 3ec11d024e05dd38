"""The built-in data sets, one file each, and the readers of their file formats.

They are plugins like those of a third party: kdtool finds them through entry points and imports none of them by name.
"""
