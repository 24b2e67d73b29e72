"""Local training: features in, clipped gradient sums out."""
