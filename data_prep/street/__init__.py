"""A rendered street seen from a moving car: what is there, how it looks, how it is drawn."""
