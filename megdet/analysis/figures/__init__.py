"""One figure a file: `draw` makes it for a group of comparable runs, or returns None if they have nothing to show."""
