"""Large-batch object-detection experiments: asked, planned, done."""

__version__ = "0.2.0.dev0"
