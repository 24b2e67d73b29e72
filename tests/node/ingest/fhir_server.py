"""A small FHIR bulk server on loopback, with the faults that real ones have."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt


@dataclass
class BulkServer:
    """What the server has, what it demands, and how it fails. Everything may be changed while it runs."""

    files: dict[str, bytes] = field(default_factory=dict)
    """By name: "Patient-1" is of type Patient, "deleted-1" a file of deletions, "error-1" of errors."""
    public_key: Any = None
    client_id: str = "node"
    polls: int = 2
    counts: dict[str, int] = field(default_factory=dict)
    cut_after: dict[str, int] = field(default_factory=dict)
    """Bytes after which the connection of a file is cut, once."""
    busy: dict[str, int] = field(default_factory=dict)
    """Path -> how often it answers 503 before it works."""
    status: dict[str, int] = field(default_factory=dict)
    """Path -> what it answers always."""
    headers: dict[str, str] = field(default_factory=dict)
    """More headers of files."""
    ranges: bool = True
    token_life_s: int = 300
    file_base: str | None = None
    content_location: str | None = None
    raw_manifest: bytes | None = None
    transaction_time: str = "2026-01-02T03:04:05.678Z"

    base: str = ""
    log: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    assertions: list[dict[str, Any]] = field(default_factory=list)

    def asked(self, part: str) -> list[dict[str, str]]:
        """Return the headers of the requests whose path has this part."""
        return [headers for _, path, headers in self.log if part in path]

    def manifest(self) -> bytes:
        """Return the list of files."""
        if self.raw_manifest is not None:
            return self.raw_manifest
        found: dict[str, Any] = {
            "transactionTime": self.transaction_time,
            "request": f"{self.base}/$export",
            "requiresAccessToken": self.public_key is not None,
            "output": [],
            "deleted": [],
            "error": [],
        }
        for name, data in self.files.items():
            kind = name.partition("-")[0]
            lines = sum(bool(line.strip()) for line in data.split(b"\n"))
            entry = {
                "type": "Bundle" if kind == "deleted" else kind,
                "url": f"{self.file_base or self.base}/files/{name}",
                "count": self.counts.get(name, lines),
            }
            found[kind if kind in ("deleted", "error") else "output"].append(entry)
        return json.dumps(found).encode()


class Handler(BaseHTTPRequestHandler):
    """Answers for one `BulkServer`."""

    bulk: BulkServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self) -> None:
        path = urlsplit(self.path).path.removeprefix("/fhir")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.bulk.log.append((self.command, self.path, dict(self.headers)))
        if self.bulk.busy.get(path, 0) > 0:
            self.bulk.busy[path] -= 1
            return self._send(503, b"busy with Jane Doe", Retry_After="7")
        if path in self.bulk.status:
            return self._send(self.bulk.status[path], b'{"issue":[{"diagnostics":"Jane Doe"}]}')
        if path == "/.well-known/smart-configuration":
            return self._send(200, json.dumps({"token_endpoint": f"{self.bulk.base}/token"}).encode())
        if path == "/token":
            return self._token(parse_qs(body.decode()))
        return self._protected(path)

    def _protected(self, path: str) -> None:
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.bulk.public_key is not None and bearer not in self.bulk.tokens[-1:]:
            return self._send(401)
        if path.endswith("$export"):
            where = self.bulk.content_location or f"{self.bulk.base}/status/1"
            return self._send(202, Content_Location=where)
        if path == "/status/1" and self.command == "DELETE":
            return self._send(202)
        if path == "/status/1":
            self.bulk.polls -= 1
            if self.bulk.polls >= 0:
                return self._send(202, Retry_After="3", X_Progress="some")
            return self._send(200, self.bulk.manifest())
        if path.startswith("/files/") and path[7:] in self.bulk.files:
            return self._file(path[7:], self.bulk.files[path[7:]])
        return self._send(404)

    def _token(self, form: dict[str, list[str]]) -> None:
        claims = jwt.decode(
            form["client_assertion"][0],
            self.bulk.public_key,
            algorithms=["RS384", "ES384"],
            audience=f"{self.bulk.base}/token",
            options={"verify_exp": False, "verify_iat": False},
        )
        assert claims["iss"] == claims["sub"] == self.bulk.client_id
        assert form["grant_type"] == ["client_credentials"]
        self.bulk.assertions.append(claims)
        self.bulk.tokens.append(f"token-{len(self.bulk.tokens)}")
        answer = {"access_token": self.bulk.tokens[-1], "expires_in": self.bulk.token_life_s}
        self._send(200, json.dumps(answer).encode())

    def _file(self, name: str, data: bytes) -> None:
        wanted, first = self.headers.get("Range"), 0
        headers = dict(self.bulk.headers)
        if wanted and self.bulk.ranges:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if first >= len(data):
                return self._send(416)
            headers["Content_Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        if name in self.bulk.cut_after:
            cut = self.bulk.cut_after.pop(name)
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(data) - first))
            self.end_headers()
            self.wfile.write(data[first : first + cut])
            self.close_connection = True
            return None
        return self._send(206 if first else 200, data[first:], **headers)


@contextmanager
def serving(server: BulkServer) -> Iterator[BulkServer]:
    """Run a server for a while."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"bulk": server}))
    server.base = f"http://127.0.0.1:{http.server_port}/fhir"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def digest_of(data: bytes) -> str:
    """Return the header that says a file's SHA-256."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"
