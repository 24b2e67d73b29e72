"""Which credentials a command uses."""

from __future__ import annotations

import os
from pathlib import Path

from coordinator.profile import Profile

ENVIRONMENT = "FEDTWIN_PROFILE"
DEFAULT = Path("~/.fedtwin/profile")


def load(given: Path | None) -> Profile:
    """Return the profile in `given`, else in $FEDTWIN_PROFILE, else in ~/.fedtwin/profile.

    Raises: MalformedProfile.
    """
    return Profile.load(Path(given or os.environ.get(ENVIRONMENT) or DEFAULT).expanduser())
