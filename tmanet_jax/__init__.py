"""TMANet-JAX: video semantic segmentation with a temporal memory (arXiv 2102.08643)."""
