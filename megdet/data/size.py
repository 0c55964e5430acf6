"""The size of an image, and how many are padded to one."""

from __future__ import annotations

Size = tuple[int, int]
"""(height, width) in pixels."""
PADDED_TOGETHER = 16
"""Images, at most, where BN batches are smaller or BN is frozen: as many as a GPU takes in one pass of large ones."""
