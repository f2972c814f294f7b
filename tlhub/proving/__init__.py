"""`tlhub prove`: on a user's own configuration and a little of their data, whether what tlhub promises holds."""
