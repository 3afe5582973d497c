"""Frames in and out: videos, folders, cameras, sound."""
