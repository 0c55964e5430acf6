"""The size of an image."""

from __future__ import annotations

Size = tuple[int, int]
"""(height, width) in pixels."""
