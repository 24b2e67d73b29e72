"""Checks of the data: what runs, what it found, and whether that is enough to take part in studies."""
