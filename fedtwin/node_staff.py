"""Who of the hospital's staff ran a command, and the audit line that says so."""

from __future__ import annotations

import os
import pwd
import re
from contextlib import closing
from typing import Any

from deid.vault import PseudonymKey
from node.audit import AuditLog
from node.audit_events import AuditEvent
from node.home import NodeHome
from node.keys import NodeKeys
from protocols.clock import SystemClock

_PERSON = b"audited person"


def record(where: NodeHome, event: AuditEvent, **fields: Any) -> None:
    """Write into the audit trail, durably, that the account which runs this did something. Before it does."""
    with closing(AuditLog(where.audit, clock=SystemClock())) as log:
        log.record(event, staff=account(), **fields)


def account() -> str:
    """Return the name of the account on this machine, in the form that the audit trail takes."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container an account may have a number only
        name = f"uid-{os.getuid()}"
    return re.sub(r"[^A-Za-z0-9._@-]", "_", name)[:64].lstrip(".@-") or "unnamed"


def person_mark(where: NodeHome, person_id: int) -> str:
    """Return what stands for a person in the audit trail: without this hospital's key nobody can tell who."""
    key = PseudonymKey(NodeKeys.load(where.keys).pseudonym)
    return key.keyed(_PERSON, str(person_id).encode()).hex()
