"""Objectives, one file each: what is trained, and the loss of a step."""
