"""Measurements, run by `make bench`. Figures are printed, not asserted."""
