"""Training: optimiser, one pure step, and the loop that tells the story of a run."""
