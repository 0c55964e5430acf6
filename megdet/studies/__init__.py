"""What looks into trained runs."""
