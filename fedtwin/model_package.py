"""A trained model as a package: a folder or a .zip that a hospital can check before it believes it.

    model.safetensors  the weights and biases of each layer by its name, float64
    study.json         the plan, canonical: what the layers mean, who was in, what was promised
    card.json card.md  what it is for, what it cost, what is not known (fedtwin.model_card)
    manifest.json      the SHA-256 of each of these files, the plan's hash, who signs
    signature.json     the lead's signature over manifest.json; a package may lack it

Guarantee: reading one runs none of its content (no pickle), follows no path inside it, and reads no more than
`MAX_BYTES`. What is returned has the plan's own layers and shapes, all numbers finite, and every file is the
one that the manifest lists. A package never holds a patient, nor who of the hospitals had how many.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray
from safetensors.numpy import save

from coordinator.profile import new_folder
from privacy import private_files
from privacy.descent import digest, unpacked
from protocols import canonical, envelope
from protocols.envelope import BadEnvelope, Purpose, SignedEnvelope
from protocols.study import Study
from protocols.study_fields import MalformedStudy

if TYPE_CHECKING:
    from node.features.table import FeatureTable

FORMAT = "fedtwin-model-v1"
WEIGHTS, PLAN, CARD, CARD_TEXT = "model.safetensors", "study.json", "card.json", "card.md"
MANIFEST, SIGNATURE = "manifest.json", "signature.json"
LISTED = (WEIGHTS, PLAN, CARD, CARD_TEXT)
MAX_BYTES = 128 * 2**20  # of one file; the largest model that a plan may have is 32 MB
MAX_JSON_BYTES = 8 * 2**20
ZIP_MOMENT = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say: the same model gives the same file

Vector = NDArray[np.float64]


class MalformedPackage(ValueError):
    """The package is damaged, not whole, or not what it says. `file` is the file in it that is wrong."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file


class NotTheLeads(MalformedPackage):
    """The signature is wrong, or by a key that the consortium's roster does not list for a lead."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed a package. `in_roster`: the roster that was asked lists this key for a lead of this name."""

    name: str
    key: str
    in_roster: bool


@dataclass(frozen=True, slots=True, eq=False)
class ModelPackage:
    """A model that was read and checked."""

    study: Study
    parameters: Vector
    card: dict[str, Any]
    made_at: str
    signer: Signer | None

    @property
    def plan_hash(self) -> str:
        """The plan's hash, in hex."""
        return self.study.plan_hash().hex()

    def predict(self, table: FeatureTable, *, own: Vector | None = None) -> Vector:
        """Return what the model says of each person: see `node.training.evaluation.predictions`.

        Args: table: rows by this study (node.features.study_rows). own: a site's own part, if it has one.
        Of an exact study see `node.training.exact_evaluation.predictions`.
        Raises: ValueError for a fit without an answer, or a Cox model whose plan asked for no baseline.
        """
        from node.training import evaluation, exact_evaluation, models  # torch only where patients are

        if self.study.exact is not None:
            fitted = exact_evaluation.Fitted.of(self.study, self.parameters)
            return exact_evaluation.predictions(fitted, table)
        outputs = models.outputs(self.study, self.parameters, table, own=own)
        return evaluation.predictions(self.study.outcome, outputs)


def files_of(
    study: Study, parameters: Vector, card: dict[str, Any], text: str, *, made_at: datetime
) -> dict[str, bytes]:
    """Return the files of a package, without a signature."""
    tensors: dict[str, Vector] = {}
    for name, (weights, biases) in unpacked(study.layout, parameters).items():
        tensors |= {f"{name}.weight": weights.copy(), f"{name}.bias": biases.copy()}
    plan_hash = study.plan_hash().hex()
    files = {
        # one word of metadata: of several the library's order is not always the same
        WEIGHTS: save(tensors, metadata={"plan_hash": plan_hash}),
        PLAN: study.canonical(),
        CARD: canonical.encode(card),
        CARD_TEXT: text.encode(),
    }
    manifest = {
        "format": FORMAT,
        "plan_hash": plan_hash,
        "parameters_digest": digest(parameters).hex(),
        "made_at": made_at.isoformat(timespec="seconds"),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "signer": None,
    }
    return files | {MANIFEST: canonical.encode(manifest)}


def signed(files: Mapping[str, bytes], *, signer: str, key: Ed25519PrivateKey) -> dict[str, bytes]:
    """Return the files with a manifest that names the signer, and the signature over it."""
    manifest = canonical.decode(files[MANIFEST], max_bytes=MAX_JSON_BYTES)
    manifest["signer"] = {"name": signer, "key": key.public_key().public_bytes_raw().hex()}
    data = canonical.encode(manifest)
    signature = envelope.sign(data, purpose=Purpose.MODEL, signer=signer, key=key)
    form = {"purpose": Purpose.MODEL, "signature": base64.b64encode(signature.signature).decode()}
    return {**files, MANIFEST: data, SIGNATURE: canonical.encode(form)}


def write(files: Mapping[str, bytes], path: Path) -> None:
    """Write a package as a folder, or as one file if `path` ends in .zip; whole or not at all, 0600.

    Raises: FileExistsError.
    """
    if path.suffix.lower() != ".zip":
        with new_folder(path) as draft:
            for name, data in files.items():
                private_files.write(draft / name, data)
        return
    if path.exists():
        raise FileExistsError(17, "exists already and is not overwritten", str(path))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, ZIP_MOMENT), data, compress_type=zipfile.ZIP_DEFLATED)
    path.parent.mkdir(parents=True, exist_ok=True)
    private_files.write(path, packed.getvalue())


def read(path: Path, *, leads: Mapping[str, Ed25519PublicKey] | None = None) -> ModelPackage:
    """Return the model in a folder or .zip, after everything about it was checked.

    Args: leads: the leads of a verified roster and their keys; None: there is no roster to ask.
    Raises: MalformedPackage; NotTheLeads for a wrong signature, or one by nobody in `leads`; OSError.
    """
    return opened(_files_in_zip(path) if path.is_file() else _files_in_folder(path), leads=leads)


def opened(
    files: Mapping[str, bytes], *, leads: Mapping[str, Ed25519PublicKey] | None = None
) -> ModelPackage:
    """Return the model in the files of a package, checked as `read` checks. Raises: MalformedPackage."""
    manifest = _manifest(files)
    study = _study(files[PLAN], manifest)
    parameters = _parameters(files[WEIGHTS], study)
    if digest(parameters).hex() != manifest["parameters_digest"]:
        raise MalformedPackage(WEIGHTS, "other numbers than the manifest's")
    card = _json(CARD, files[CARD])
    if card.get("plan_hash") != manifest["plan_hash"]:
        raise MalformedPackage(CARD, "the card of another plan")
    return ModelPackage(study, parameters, card, manifest["made_at"], _signer(files, manifest, leads))


def _files_in_folder(path: Path) -> dict[str, bytes]:
    found = {}
    if not path.is_dir():
        raise FileNotFoundError(2, "no such package", str(path))
    for name in (*LISTED, MANIFEST, SIGNATURE):
        file = path / name
        if not file.is_file() or file.is_symlink():
            continue
        with file.open("rb") as stream:
            found[name] = stream.read(MAX_BYTES + 1)
    return _whole(found)


def _files_in_zip(path: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist()]
            if len(set(names)) != len(names) or not set(names) <= {*LISTED, MANIFEST, SIGNATURE}:
                raise MalformedPackage(path.name, "holds other files than a package does")
            found = {}
            for entry in archive.infolist():
                with archive.open(entry) as stream:
                    found[entry.filename] = stream.read(MAX_BYTES + 1)  # whatever size the entry claims
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise MalformedPackage(path.name, "not a zip that can be read") from error
    return _whole(found)


def _whole(found: dict[str, bytes]) -> dict[str, bytes]:
    for name in (*LISTED, MANIFEST):
        if name not in found:
            raise MalformedPackage(name, "is missing")
    for name, data in found.items():
        if len(data) > MAX_BYTES:
            raise MalformedPackage(name, f"more than {MAX_BYTES} bytes")
    return found


def _manifest(files: Mapping[str, bytes]) -> dict[str, Any]:
    found = _json(MANIFEST, files[MANIFEST])
    if set(found) != {"format", "plan_hash", "parameters_digest", "made_at", "files", "signer"}:
        raise MalformedPackage(MANIFEST, "other keys than a manifest has")
    if found["format"] != FORMAT:
        raise MalformedPackage(MANIFEST, "of a format that this version cannot read")
    listed = found["files"]
    if not isinstance(listed, dict) or set(listed) != set(LISTED):
        raise MalformedPackage(MANIFEST, "lists other files than a package has")
    for name in LISTED:
        if listed[name] != hashlib.sha256(files[name]).hexdigest():
            raise MalformedPackage(name, "not the file that the manifest lists")
    return found


def _study(data: bytes, manifest: Mapping[str, Any]) -> Study:
    try:
        study = Study.from_json(_json(PLAN, data))
    except MalformedStudy as error:
        raise MalformedPackage(PLAN, str(error)) from error
    if study.canonical() != data or study.plan_hash().hex() != manifest["plan_hash"]:
        raise MalformedPackage(PLAN, "another plan than the manifest's")
    return study


def _parameters(data: bytes, study: Study) -> Vector:
    try:
        tensors = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]  # its stubs lack it
    except (safetensors.SafetensorError, ValueError) as error:
        raise MalformedPackage(WEIGHTS, "not a file of safetensors") from error
    shapes = {f"{layer.name}.weight": [layer.outputs, layer.inputs] for layer in study.layout}
    shapes |= {f"{layer.name}.bias": [layer.outputs] for layer in study.layout}
    if {name: list(tensor["shape"]) for name, tensor in tensors.items()} != shapes:
        raise MalformedPackage(WEIGHTS, "other layers than the plan's")
    if any(tensor["dtype"] != "F64" for tensor in tensors.values()):
        raise MalformedPackage(WEIGHTS, "numbers of another kind than float64")
    flat = [
        np.frombuffer(bytes(tensors[f"{layer.name}.{part}"]["data"]), dtype="<f8")
        for layer in study.layout
        for part in ("weight", "bias")
    ]
    found = np.concatenate(flat).astype(np.float64)
    if not np.isfinite(found).all():
        raise MalformedPackage(WEIGHTS, "a number that is not finite")
    return found


def _signer(
    files: Mapping[str, bytes], manifest: Mapping[str, Any], leads: Mapping[str, Ed25519PublicKey] | None
) -> Signer | None:
    said = manifest["signer"]
    if (said is None) != (SIGNATURE not in files):
        raise NotTheLeads(SIGNATURE, "is missing" if said is not None else "of nobody the manifest names")
    if said is None:
        return None
    form = _json(SIGNATURE, files[SIGNATURE])
    try:
        name, key = str(said["name"]), bytes.fromhex(said["key"])
        raw = base64.b64decode(form["signature"], validate=True)
        signature = SignedEnvelope(form["purpose"], name, files[MANIFEST], raw)
        public = Ed25519PublicKey.from_public_bytes(key)
        envelope.verify(signature, purpose=Purpose.MODEL, signer=name, key=public)
    except (BadEnvelope, ValueError, TypeError, KeyError) as error:
        raise NotTheLeads(SIGNATURE, "does not hold") from error
    if leads is not None and (name not in leads or leads[name].public_bytes_raw() != key):
        raise NotTheLeads(SIGNATURE, "by a key that the roster does not list for a lead of that name")
    return Signer(name, key.hex(), leads is not None)


def _json(name: str, data: bytes) -> dict[str, Any]:
    try:
        found = canonical.decode(data, max_bytes=MAX_JSON_BYTES)
    except canonical.MalformedJson as error:
        raise MalformedPackage(name, "is not JSON") from error
    if not isinstance(found, dict):
        raise MalformedPackage(name, "is not an object")
    return found
