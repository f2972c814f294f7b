"""How each data set that tlhub brings along is made."""
