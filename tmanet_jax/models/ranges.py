"""Ranges of a configuration's numbers."""


def check_range(field: str, value: float, low: float, high: float) -> None:
    """Raises ValueError naming the field unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{field} is from {low} to {high}, not {value}")


MOST_CHANNELS = 16_384
"""Of any layer; a mistyped number ends here instead of filling the memory."""
