"""`tlhub quickstart`: every task on the embedded checkpoints and data, each strategy beside training from scratch."""
