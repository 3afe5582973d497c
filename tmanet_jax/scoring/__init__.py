"""Scores of segmented clips and videos, reports, result files."""
