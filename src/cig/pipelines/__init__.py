"""What the library does, one file a job."""
