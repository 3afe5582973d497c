"""The state of a run on disk: written, found damaged, restored."""
