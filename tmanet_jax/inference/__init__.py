"""Inference: windows over whole frames, and evaluation of a set of clips."""
