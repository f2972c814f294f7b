"""`tlhub plan`: which checkpoint, and how to transfer, before anything is trained."""
