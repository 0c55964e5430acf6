"""One figure a file: `draw` makes it for a group of comparable runs, or None where they have nothing to show."""
