"""Checks of this project against golden data computed by the original, one module a subject."""
