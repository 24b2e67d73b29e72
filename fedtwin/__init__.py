"""The command `fedtwin` and the researcher's client.

>>> import fedtwin
>>> fedtwin.connect("/no/such/profile")
Traceback (most recent call last):
    ...
coordinator.profile.MalformedProfile: /no/such/profile: no profile.toml here
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedtwin.client import Client


def connect(profile: str | Path | None = None) -> Client:
    """Return a client that asks in the name of `profile`, the directory of its credentials.

    `fedtwin coordinator researcher add` makes one. Without an argument: $FEDTWIN_PROFILE, else
    ~/.fedtwin/profile. Raises: MalformedProfile.
    """
    from fedtwin.client import Client  # lazily: importing the package must not cost gRPC's import
    from fedtwin.profile import load

    return Client(load(None if profile is None else Path(profile)))
