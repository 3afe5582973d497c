"""Configurations: each states only what differs from the defaults, which stand beside their use."""
