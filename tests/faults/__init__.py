"""Faults by name: what broke a run once, and what the run does about it now."""
