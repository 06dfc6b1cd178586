"""Engines that hold a gallery and search it."""
