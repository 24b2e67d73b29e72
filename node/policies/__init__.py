"""Starter policies, one file per preset."""
