"""Studies of trained runs."""
