"""Reading a study from its file, with the feature set that it names in a file beside it."""

from __future__ import annotations

import tomllib
from pathlib import Path

from protocols.feature_set import FeatureSet
from protocols.study import Study
from protocols.study_fields import MAX_BYTES, MalformedStudy


def read_study(path: Path) -> Study:
    """Return the study in `path`.

    `feature_set = "cardio.toml"` stands for what that file, in the same folder, holds. The study then holds
    all of it: its hash is the hash of both.
    Raises: MalformedStudy; OSError.
    """
    data = path.read_bytes()
    if len(data) > MAX_BYTES:
        raise MalformedStudy("$", f"at most {MAX_BYTES} bytes")
    try:
        form = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise MalformedStudy("$", "is not TOML") from error
    named = form.get("feature_set")
    if isinstance(named, str):
        if Path(named).name != named:
            raise MalformedStudy("feature_set", "names a file in the study's own folder")
        form["feature_set"] = FeatureSet.parse((path.parent / named).read_bytes()).to_json()
    return Study.from_json(form)
