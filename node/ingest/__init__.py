"""Raw sources in: the only reader of what the hospital has."""
