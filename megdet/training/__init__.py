"""What a rank does: loop, evaluation, checkpoints. Knows a plan in `assemble`, `provenance` and `attempt` alone."""
