"""Ours and a peer, side by side in one run; a ratio comes out."""
