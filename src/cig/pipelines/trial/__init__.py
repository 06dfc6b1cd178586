"""A blind trial: its votes, its page, its result."""
