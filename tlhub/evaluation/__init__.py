"""Scores, their uncertainty, what they are compared with, and how all of it is shown."""
