"""A question that runs in a thread and can be made to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Generic, TypeVar

from node.omop.errors import NotAStore, StoreBusy
from node.queries.engine import CdmEngine, Warehouse
from node.queries.limits import Limits
from protocols.refusal import RefusalCode, Refused

Answer = TypeVar("Answer")


class RunningQuestion(Generic[Answer]):
    """Call it in a thread to ask; `interrupt` it from another. Used once.

    Args:
        ask: what to compute; gets an engine of its own.
        warehouse: the hospital's CDM; raises Refused if there is none.
    """

    def __init__(
        self, ask: Callable[[CdmEngine], Answer], warehouse: Callable[[], Warehouse], *, limits: Limits
    ) -> None:
        self._ask = ask
        self._warehouse = warehouse
        self._limits = limits
        self._lock = threading.Lock()
        self._engine: CdmEngine | None = None
        self._stopped = False

    def __call__(self) -> Answer:
        """Return the answer, exact.

        Raises: Refused(NOT_READY) while the database is away, DEADLINE if interrupted; what `ask` raises.
        """
        try:
            with closing(self._warehouse().engine(self._limits)) as engine:
                with self._lock:
                    if self._stopped:
                        raise Refused(RefusalCode.DEADLINE)
                    self._engine = engine
                try:
                    return self._ask(engine)
                finally:
                    with self._lock:
                        self._engine = None
        except (NotAStore, StoreBusy):
            raise Refused(RefusalCode.NOT_READY) from None

    def interrupt(self) -> None:
        """Make the question fail soon, or not begin."""
        with self._lock:
            self._stopped = True
            if self._engine is not None:
                self._engine.interrupt()
