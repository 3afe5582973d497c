"""Files of weights, this project's and the original's."""
