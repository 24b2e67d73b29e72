"""The key and the vault behind `fedtwin deid`: of a node's home, or two small files of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from deid.vault import KEY_BYTES, PseudonymKey, Vault
from fedtwin.screen import Exit, Stop, say
from privacy import private_files
from privacy.rng import SecureBits

DEFAULT_KEY = Path("~/.fedtwin/deid/key")


@contextmanager
def opened(key: Path | None, home: Path | None) -> Iterator[Vault]:
    """Open a node's vault, or the one beside the key file, which is made (0600) if it is not there.

    Raises: Stop; WrongKey if the vault beside the key was made with another one.
    """
    if home is not None:
        if key is not None:
            raise Stop(Exit.USAGE, "--key and --home exclude each other: a node has a key of its own")
        from fedtwin.node_ingest import VAULT
        from node.keys import NodeKeys

        used = PseudonymKey(NodeKeys.load(home.expanduser() / "keys").pseudonym)
        path = home.expanduser() / VAULT
    else:
        file = (key or DEFAULT_KEY).expanduser()
        used, path = PseudonymKey(_read_or_made(file)), file.with_name(file.name + ".vault")
    with closing(Vault.open(path, key=used, bits=SecureBits())) as vault:
        yield vault


def _read_or_made(file: Path) -> bytes:
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_files.write(file, SecureBits().bytes(KEY_BYTES))
        say(
            f"Made the key {file}. Keep it and {file.name}.vault: they lead from pseudonyms back to patients."
        )
    raw = private_files.read_secret(file)
    if len(raw) != KEY_BYTES:
        raise Stop(Exit.USAGE, f"{file} is no key: it has {len(raw)} bytes instead of {KEY_BYTES}")
    return raw
