"""From clip records to batches: numpy, OpenCV and grain; never jax arrays, never the model."""
