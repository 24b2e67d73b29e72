"""Flower at the coordinator: SuperLink on loopback, a gateway before it, the training app's server side."""
