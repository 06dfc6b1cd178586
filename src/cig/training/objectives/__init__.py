"""Objectives, one file each: the network that is trained, and the loss of a step."""
