"""Checkpoints, their heads and adapters, and what of them is trained."""
