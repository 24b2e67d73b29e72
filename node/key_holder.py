"""Whom this hospital trusts with the keys of encrypted sums.

Guarantee: vectors are encrypted only for the key-holder whose fingerprint the hospital's staff wrote down
(`fedtwin node trust-keyholder`), as they heard it from the key-holder. The roster alone is not believed:
whoever signs it also runs the coordinator, and could name itself.
"""

from __future__ import annotations

import hmac
import re
from pathlib import Path

from node.sums import Encrypted
from privacy import private_files
from privacy.encrypted_sum import KeyHolder
from privacy.encryption import SCHEMES
from protocols.refusal import RefusalCode, Refused
from protocols.roster import MASKED, Roster, fingerprint

FILE = "key_holder"  # in the node's folder: 64 hex digits
FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def trust(folder: Path, text: str) -> str:
    """Write down whom to trust; the one before is trusted no longer. Raises: ValueError."""
    found = "".join(text.split()).lower()
    if not FINGERPRINT.fullmatch(found):
        raise ValueError("a key-holder's fingerprint has 64 hex digits: `fedtwin keyholder status` shows it")
    private_files.write(folder / FILE, found.encode() + b"\n")
    return found


def trusted(folder: Path) -> str:
    """Return the fingerprint that was written down; empty if none was."""
    try:
        return (folder / FILE).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def encrypted(roster: Roster, *, trusted: str, scheme: str = "") -> Encrypted | None:
    """Return how this consortium adds up; None for masks.

    Args: scheme: of the layers that a study has encrypted in a consortium that masks.

    Raises: Refused(KEY_HOLDER_AWAY) if the roster lists none yet; Refused(NOT_ALLOWED) if it is not the
        trusted one.
    """
    usual = roster.settings.secure_sum
    if scheme and usual != MASKED:
        raise Refused(RefusalCode.NOT_ALLOWED)
    chosen = scheme or usual
    if chosen == MASKED:
        return None
    holder = roster.key_holder
    if holder is None:
        raise Refused(RefusalCode.KEY_HOLDER_AWAY)
    if not hmac.compare_digest(fingerprint(holder.identity_key), trusted):
        raise Refused(RefusalCode.NOT_ALLOWED)
    return Encrypted(SCHEMES[chosen], KeyHolder(holder.name, holder.public_key))


def require_library(roster: Roster) -> None:
    """Raise MissingExtra where the consortium's way to add up is not installed."""
    if roster.settings.secure_sum != MASKED:
        SCHEMES[roster.settings.secure_sum].require()
