"""Flower at the hospital: the SuperNode as a supervised process, and our own runner that executes one app."""
