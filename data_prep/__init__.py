"""Writes clip records from data sets as they lie on disk; never imports jax or the model."""
