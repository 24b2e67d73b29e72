"""Flower at the hospital: the SuperNode as a supervised process, and a runner of our own that executes one app."""
