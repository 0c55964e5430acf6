"""What the paper claims, and whether runs bear it out."""
