"""Model files: which there are, whether they are sound, how they are converted and fetched."""
