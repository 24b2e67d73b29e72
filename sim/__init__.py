"""Hospitals that do not exist, and networks of them on one machine."""
