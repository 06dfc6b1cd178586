"""`cig reproduce`: published numbers, measured again on this machine."""
