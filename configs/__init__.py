"""Configurations: default.py holds every field, the others only what differs."""
