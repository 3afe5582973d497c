"""Damaged and hostile input for every reader: mutations, and targets that read what they leave."""
