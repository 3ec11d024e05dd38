"""Networks seen as parts: stages, widths, depth and stems."""
