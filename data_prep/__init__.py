"""Writes clip records from data sets as they lie on disk; never imports jax or the model."""

from tmanet_jax.errors import tell_interrupts

tell_interrupts()  # while the programs here, and run.py, load their libraries for seconds
