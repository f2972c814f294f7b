"""The version of tlhub."""

__version__ = "0.1.0"
