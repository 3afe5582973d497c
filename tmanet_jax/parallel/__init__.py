"""One program on many devices, in several processes."""
