"""Make the test vectors again: `python -m tests.vectors.make_wire`. Imports nothing of ours, on purpose.

What the formats are is written here a second time, from their descriptions; tests/protocols/test_vectors.py
holds both against each other. Each file has `good` entries and `bad` ones, which must be refused.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FOLDER = Path(__file__).parent
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
CONSORTIUM = "c-" + "00" * 15 + "01"
OTHER_CONSORTIUM = "c-" + "00" * 15 + "02"


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def text_of(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def signature(purpose: str, signer: str, payload: bytes, key: Ed25519PrivateKey) -> bytes:
    message = b""
    for part in (b"fedtwin-envelope-v1", purpose.encode(), signer.encode(), payload):
        message += len(part).to_bytes(8, "big") + part
    return key.sign(message)


def sealed(purpose: str, signer: str, payload: bytes, key: Ed25519PrivateKey = KEY, /, **changes: Any) -> str:
    fields: dict[str, Any] = {
        "payload": b64(payload),
        "purpose": purpose,
        "signature": b64(signature(purpose, signer, payload, key)),
        "signer": signer,
    }
    return text_of({**fields, **changes})


def ids() -> dict[str, Any]:
    digits = "000102030405060708090a0b0c0d0e0f"
    kinds = {"ConsortiumId": "c", "NodeId": "n", "SessionId": "s", "QuestionId": "q"}
    good = [{"kind": kind, "text": f"{prefix}-{digits}", "hex": digits} for kind, prefix in kinds.items()]
    bad = [
        {"why": "empty", "text": ""},
        {"why": "no prefix", "text": digits},
        {"why": "another kind", "text": f"c-{digits}"},
        {"why": "upper case", "text": f"n-{digits.upper()}"},
        {"why": "too short", "text": f"n-{digits[:-1]}"},
        {"why": "too long", "text": f"n-{digits}0"},
        {"why": "not hex", "text": f"n-{digits[:-1]}g"},
        {"why": "blank in front", "text": f" n-{digits}"},
        {"why": "line break behind", "text": f"n-{digits}\n"},
        {"why": "digits of another script", "text": "n-" + "١" * 32},
        {"why": "two dashes", "text": f"n--{digits[:-1]}"},
    ]
    return {"good": good, "bad": [{"kind": "NodeId", **entry} for entry in bad]}


def canonical() -> dict[str, Any]:
    good = [
        {"value": {"b": 1, "a": [True, None, 0.5]}, "bytes": '{"a":[true,null,0.5],"b":1}'},
        {"value": {"é": "ü", "z": {}}, "bytes": '{"z":{},"é":"ü"}'},
        {"value": [-1, 9007199254740993, 1e-05, 1e16], "bytes": "[-1,9007199254740993,1e-05,1e+16]"},
        {"value": 'a"b\\\n\u0001', "bytes": '"a\\"b\\\\\\n\\u0001"'},
    ]
    bad = [
        {"why": "a key twice", "bytes": '{"a":1,"a":1}'},
        {"why": "a key twice further down", "bytes": '{"x":[{"a":1,"a":2}]}'},
        {"why": "not a number", "bytes": "[NaN]"},
        {"why": "infinity", "bytes": "[Infinity]"},
        {"why": "minus infinity", "bytes": "-Infinity"},
        {"why": "two values", "bytes": "{} {}"},
        {"why": "half a value", "bytes": '{"a":'},
        {"why": "nothing", "bytes": ""},
        {"why": "single quotes", "bytes": "{'a':1}"},
        {"why": "a comma too many", "bytes": "[1,]"},
        {"why": "a comment", "bytes": "[1] // one"},
    ]
    return {"good": good, "bad": bad}


def envelopes() -> dict[str, Any]:
    payload, signer = b'{"a":1}', "ada"
    asked = {"purpose": "question", "signer": signer, "public_key": public(KEY).hex()}
    right = signature("question", signer, payload, KEY)
    moved = signature("question", "ad", b"a" + payload, KEY)  # the same bytes, split elsewhere
    unlabelled = KEY.sign(payload)
    short = b64(right[:-1])
    extra = json.loads(sealed("question", signer, payload)) | {"note": ""}
    missing = {k: v for k, v in json.loads(sealed("question", signer, payload)).items() if k != "signer"}
    flipped = bytes([right[0] ^ 1]) + right[1:]
    bad = [
        ("signed for another purpose", sealed("study", signer, payload)),
        ("purpose changed after signing", sealed("question", signer, payload, signature=b64(
            signature("study", signer, payload, KEY)))),
        ("an unknown purpose", sealed("anything", signer, payload)),
        ("another signer", sealed("question", "bob", payload)),
        ("signer changed after signing", sealed("question", signer, payload, signature=b64(
            signature("question", "bob", payload, KEY)))),
        ("another key", sealed("question", signer, payload, OTHER_KEY)),
        ("payload changed after signing", sealed("question", signer, payload, payload=b64(b'{"a":2}'))),
        ("fields split elsewhere", sealed("question", signer, payload, signature=b64(moved))),
        ("signature over the bare payload", sealed("question", signer, payload, signature=b64(unlabelled))),
        ("one bit of the signature flipped", sealed("question", signer, payload, signature=b64(flipped))),
        ("signature of zeros", sealed("question", signer, payload, signature=b64(bytes(64)))),
        ("signature too short", sealed("question", signer, payload, signature=short)),
        ("a field too many", text_of(extra)),
        ("a field too few", text_of(missing)),
        ("a field that is no text", sealed("question", signer, payload, payload=1)),
        ("payload is no base64", sealed("question", signer, payload, payload="*")),
        ("a list", "[]"),
        ("no JSON", "question"),
        ("empty", ""),
        ("empty signer", sealed("question", "", payload)),
    ]  # fmt: skip
    good = [
        {**asked, "payload": payload.decode(), "envelope": sealed("question", signer, payload)},
        {**asked, "payload": "", "envelope": sealed("question", signer, b"")},
        {**asked, "purpose": "roster", "signer": CONSORTIUM, "payload": "x",
         "envelope": sealed("roster", CONSORTIUM, b"x")},
    ]  # fmt: skip
    return {"good": good, "bad": [{**asked, "why": why, "envelope": envelope} for why, envelope in bad]}


def token(body: bytes, *, prefix: str = "ft1.", check: bytes | None = None) -> str:
    end = check if check is not None else hashlib.sha256(b"ft1." + body).digest()[:4]
    return prefix + base64.urlsafe_b64encode(body + end).rstrip(b"=").decode()


def invitations() -> dict[str, Any]:
    expiry, ca, roster, secret = 1_800_000_000, b"\x01" * 32, b"\x02" * 32, bytes(range(40))
    head = expiry.to_bytes(8, "big") + ca + roster + secret
    body = head + b"fedtwin.example.org:8440"
    right = token(body)
    good = [
        {
            "token": right,
            "address": "fedtwin.example.org:8440",
            "ca_fingerprint": ca.hex(),
            "roster_key_fingerprint": roster.hex(),
            "secret": secret.hex(),
            "expires_unix_s": expiry,
        }
    ]
    bad = [
        ("empty", ""),
        ("no prefix", right.removeprefix("ft1.")),
        ("another version", token(body, prefix="ft2.")),
        ("one character wrong", right[:40] + ("A" if right[40] != "A" else "B") + right[41:]),
        ("the end is missing", right[:-3]),
        ("cut in the middle", right[:100]),
        ("the checksum is another one", token(body, check=b"\0\0\0\0")),
        ("no base64url", right[:50] + "!" + right[51:]),
        ("no address", token(head)),
        ("an address without a port", token(head + b"fedtwin.example.org")),
        ("a port that does not exist", token(head + b"fedtwin.example.org:65536")),
        ("an address with a path", token(head + b"a/b:1")),
        ("a user in the address", token(head + b"u@b:1")),
        ("a secret that is too short", token(head[:-1])),
        ("an expiry beyond all calendars", token(b"\xff" * 8 + body[8:])),
        ("nothing but a checksum", token(b"")),
    ]
    return {"good": good, "bad": [{"why": why, "token": text} for why, text in bad]}


def rosters() -> dict[str, Any]:
    def node(number: int, key: bytes, **changes: Any) -> dict[str, Any]:
        entry = {
            "flower_key": f"ecdsa-sha2-nistp384 AAAA{number}",
            "identity_key": b64(key),
            "name": f"Hospital {number}",
            "node_id": f"n-{number:032x}",
            "revoked": False,
        }
        return {**entry, **changes}

    def person(name: str, key: bytes, **changes: Any) -> dict[str, Any]:
        entry = {
            "identity_key": b64(key),
            "name": name,
            "projects": ["demo"],
            "revoked": False,
            "role": "researcher",
        }
        return {**entry, **changes}

    first, second, third = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
    roster = {
        "consortium": CONSORTIUM,
        "format": 1,
        "issued_at": "2026-11-21T08:00:00+00:00",
        "nodes": [node(1, first), node(2, second, revoked=True)],
        "people": [person("ada", third)],
        "settings": {"minimum_sites": 3, "name": "Example", "tolerance": 1},
        "version": 7,
    }

    def signed(payload: str, *, key: Ed25519PrivateKey = KEY, signer: str = CONSORTIUM) -> str:
        return sealed("roster", signer, payload.encode(), key)

    def changed(**changes: Any) -> str:
        return signed(text_of({**roster, **changes}))

    settings: dict[str, Any] = dict(roster["settings"])  # type: ignore[call-overload]  # it is a dict
    whole = signed(text_of(roster))
    tampered = json.loads(whole) | {"payload": b64(text_of({**roster, "version": 8}).encode())}
    bad = [
        ("tampered after signing", text_of(tampered)),
        ("signed with another key", signed(text_of(roster), key=OTHER_KEY)),
        ("signed for another purpose", sealed("study", CONSORTIUM, text_of(roster).encode())),
        ("signed as another consortium", signed(text_of(roster), signer=OTHER_CONSORTIUM)),
        ("written for another consortium", changed(consortium=OTHER_CONSORTIUM)),
        ("not canonical", signed(json.dumps(roster, sort_keys=True))),
        ("an unknown key", changed(note="")),
        ("an unknown key in a node", changed(nodes=[node(1, first, note="")])),
        ("a key is missing", signed(text_of({k: v for k, v in roster.items() if k != "people"}))),
        ("another format", changed(format=2)),
        ("version zero", changed(version=0)),
        ("a version with a point", changed(version=7.0)),
        ("a version that is true", changed(version=True)),
        ("a time without a zone", changed(issued_at="2026-11-21T08:00:00")),
        ("a time in another zone", changed(issued_at="2026-11-21T09:00:00+01:00")),
        ("nodes out of order", changed(nodes=[node(2, second), node(1, first)])),
        ("a node twice", changed(nodes=[node(1, first), node(1, second)])),
        ("two nodes with one identity key", changed(nodes=[node(1, first), node(2, first)])),
        ("a node with a person's key", changed(nodes=[node(1, third)])),
        ("two nodes with one Flower key", changed(nodes=[
            node(1, first), node(2, second, flower_key=node(1, first)["flower_key"])])),
        ("a key that is too short", changed(nodes=[node(1, first[:-1])])),
        ("a key that is no base64", changed(nodes=[node(1, first, identity_key="*")])),
        ("revoked is no flag", changed(nodes=[node(1, first, revoked=0)])),
        ("a name with a line break", changed(nodes=[node(1, first, name="a\nb")])),
        ("a name that is no text", changed(nodes=[node(1, first, name=7)])),
        ("a person with a node's role", changed(people=[person("ada", third, role="node")])),
        ("a person without projects", changed(people=[person("ada", third, projects=[])])),
        ("projects as one text", changed(people=[person("ada", third, projects="demo")])),
        ("a person's name with a slash", changed(people=[person("a/b", third)])),
        ("a minimum of one site", changed(settings={**settings, "minimum_sites": 1})),
        ("a tolerance of all sites", changed(settings={**settings, "tolerance": 3})),
        ("nodes are no list", changed(nodes={})),
        ("a number", signed("7")),
    ]  # fmt: skip
    return {
        "consortium": CONSORTIUM,
        "public_key": public(KEY).hex(),
        "good": [{"envelope": whole, "version": 7, "active": ["n-" + "0" * 31 + "1"]}],
        "bad": [{"why": why, "envelope": envelope} for why, envelope in bad],
    }


def made() -> dict[str, Any]:
    return {
        "ids": ids(),
        "canonical": canonical(),
        "envelope": envelopes(),
        "invitation": invitations(),
        "roster": rosters(),
    }


def main() -> None:
    for name, vectors in made().items():
        text = json.dumps(vectors, indent=1, ensure_ascii=False)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
