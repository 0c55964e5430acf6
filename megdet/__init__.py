"""Large-batch object-detection experiments: asked, planned, done."""

__version__ = "0.1.0"
