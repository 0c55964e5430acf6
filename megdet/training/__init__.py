"""What a rank does: loop, evaluation, checkpoints. Knows a plan in `assemble` and `attempt` alone."""
