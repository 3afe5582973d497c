"""Writes clip records, in whatever order their parts are done."""
