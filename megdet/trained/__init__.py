"""What a trained run is good for: its detector predicts, is scored and exported, without its training data."""
