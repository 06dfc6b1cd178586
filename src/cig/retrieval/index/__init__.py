"""Indexes: engines that hold a gallery and search it."""
