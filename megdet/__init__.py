"""Large-batch object-detection experiments: asked, planned, done."""
