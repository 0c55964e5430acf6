"""Many experiments in one command."""
