"""Networks as programs of other engines: they run without this package."""
