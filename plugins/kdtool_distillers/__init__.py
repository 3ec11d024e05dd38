"""The built-in distillers."""
