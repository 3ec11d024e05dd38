"""Recipes of trainings: TOML files with options, and what reads them. Nothing here imports torch."""
