"""The environment variables by which a launcher tells ranks what they need to know."""

from __future__ import annotations

ATTEMPT = "MEGDET_ATTEMPT"
"""The attempt that they are part of, as its launcher named it."""
STORE = "MEGDET_STORE"
"""Of ranks on one machine: the file in which they meet."""
LISTENER = "MEGDET_LISTENER"
"""Of ranks that meet at MASTER_ADDR: the number of rank 0's open socket there; -1 for others."""
TERMINAL = "MEGDET_TERMINAL"
"""Of a rank whose standard error is copied into its log: the descriptor for what is not to be copied."""
