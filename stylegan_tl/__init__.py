"""Which datasets work well together when a GAN is transferred, and what to freeze on the way."""

__version__ = "0.1.0"
