"""From what is asked to a frozen plan; standard library only."""
