"""Inference: frames and videos segmented, by jax or by another engine, and what is written then."""
