"""A trained network handed on: a folder with its weights, what they are, and a model card."""
