"""Training: one loop, an objective a file, and the data that they learn from."""
