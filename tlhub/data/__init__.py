"""Data: read from any source, checked, divided, and encoded for models."""
