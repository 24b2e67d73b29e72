"""Fixtures of these tests."""

from tests.consortium import consortium, loop_thread
from tests.node.engines import backend, engine, generated, server, spark, warehouse

__all__ = ["backend", "consortium", "engine", "generated", "loop_thread", "server", "spark", "warehouse"]
