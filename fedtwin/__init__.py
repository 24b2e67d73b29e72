"""The command `fedtwin` and the researcher's client.

>>> import fedtwin
>>> fedtwin.connect("/no/such/profile")
Traceback (most recent call last):
    ...
fedtwin.profile.MalformedProfile: /no/such/profile: no profile.toml here
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedtwin.client import Client


def connect(profile: str | Path) -> Client:
    """Return a client that asks in the name of `profile`, its directory of credentials.

    `fedtwin coordinator researcher add` makes one. Raises: MalformedProfile.
    """
    from fedtwin.client import Client  # lazily: importing the package must not cost gRPC's import
    from fedtwin.profile import Profile

    return Client(Profile.load(Path(profile)))
