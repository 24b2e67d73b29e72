"""Fixtures of these tests."""

from tests.consortium import consortium, loop_thread

__all__ = ["consortium", "loop_thread"]
