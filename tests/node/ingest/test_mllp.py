"""The listener: what it acknowledges is on the disk, what is wrong gets the right answer, limits hold."""

import asyncio
import ipaddress
import logging
import os
import signal
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from node.ingest.inbox import Inbox, InboxBusy
from node.ingest.mllp import Listener, listening, load_once
from node.ingest.mllp_reply import code_of, judge, reply
from node.ingest.mllp_senders import Limits, networks, tls_context
from protocols.clock import FixedClock, SystemClock
from tests.bench.hl7v2_messages import oru
from tests.bench.mllp_client import END, START, send
from tests.node.ingest.hl7v2_made import PID, message, read_file

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CLOCK = FixedClock(NOW)
SECRET = "Zebrowska"
GOOD = message("ADT^A28", PID)


def opened(folder: Path, **named: int) -> Inbox:
    return Inbox.open(folder / "inbox", clock=CLOCK, **named)


@asynccontextmanager
async def listener(folder: Path, *, limits: Limits | None = None, **named) -> AsyncIterator[Listener]:
    inbox = named.pop("inbox", None) or opened(folder)
    try:
        async with listening(inbox, host="127.0.0.1", port=0, clock=CLOCK, limits=limits, **named) as found:
            yield found
    finally:
        inbox.close()


def stored(folder: Path) -> list[bytes]:
    """The messages in the inbox, those of an open file too."""
    found = []
    for path in sorted((folder / "inbox").glob("0*")):
        found += [part.strip(START) for part in path.read_bytes().split(END) if part]
    return found


def answered(answer: bytes) -> str:
    return answer.decode().split("\r")[1].split("|")[1]


def test_a_message_is_on_the_disk_when_it_is_acknowledged(tmp_path):
    async def main() -> None:
        async with listener(tmp_path) as found:
            _, (answer,) = await send(found.port, [GOOD], unanswered=1)
            assert stored(tmp_path) == [GOOD]
            header, msa, end = answer.decode().split("\r")
            assert header == "MSH|^~\\&|EHR|GHH|APP|GHH|20260102030405+0000||ACK^A28|FT1|P|2.5"
            assert (msa, end) == ("MSA|AA|C1", "")
            assert found.counts == {"AA": 1}

    asyncio.run(main())


def test_the_inbox_is_for_its_owner_and_its_names_say_nothing(tmp_path):
    async def main() -> None:
        async with listener(tmp_path) as found:
            await send(found.port, [GOOD], unanswered=1)

    asyncio.run(main())
    folder = tmp_path / "inbox"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (path,) = folder.glob("0*")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.name == f"{int(NOW.timestamp() * 1000):015d}.hl7"


BAD = [
    (b"", "AE", 100),
    (b"hello", "AE", 100),
    (b"MSH|^~", "AE", 100),
    (message("ADT^A28", PID).replace(b"|C1|", b"||"), "AE", 101),
    (message("", PID), "AE", 101),
    (GOOD + b"\x00", "AE", 102),
    (GOOD + b"\x0b", "AE", 102),
    (GOOD + "Ü".encode("latin-1"), "AE", 102),
    (message("ADT^A28", PID, version="3.0"), "AR", 203),
    (message("QBP^Q11", PID), "AR", 200),
]


@pytest.mark.parametrize(("data", "code", "error"), BAD)
def test_what_is_wrong_is_answered_with_its_code_and_not_stored(tmp_path, data, code, error):
    async def main() -> None:
        async with listener(tmp_path) as found:
            _, answers = await send(found.port, [data, GOOD], unanswered=2)
            assert [answered(answer) for answer in answers] == [code, "AA"]
            err = answers[0].decode().split("\r")[2]
            assert err.startswith("ERR|")
            assert f"{error}^" in err or f"^{error}&" in err
            assert stored(tmp_path) == [GOOD]

    asyncio.run(main())


def test_an_answer_repeats_no_content(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    wrong = message("ADT^A28", f"PID|1||M1||{SECRET}", version=SECRET)
    for data in (wrong, wrong.replace(b"MSH|^~", b"MSH|^^"), GOOD + SECRET.encode() + b"\x00"):
        verdict = judge(data)
        said = reply(verdict, number=1, now=NOW).decode()
        assert SECRET not in said.replace(f"|{SECRET}\r", "\r")  # MSH-12 goes back to who sent it
        assert len(said) < 600
    long = message("ADT^A28", PID).replace(b"|C1|", b"|" + b"x" * 9000 + b"|")
    assert len(reply(judge(long), number=1, now=NOW)) < 1000
    assert not caplog.records


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"MSH|^~\\&|", GOOD[:40], GOOD[:-20], GOOD]))
def test_any_bytes_get_one_answer_with_a_code(tail, head):
    said = reply(judge(head + tail), number=1, now=NOW)
    assert said.startswith(b"MSH")
    lines = said.decode().split("\r")
    assert lines[1][:3] == "MSA"
    assert lines[1].split(lines[0][3])[1] in ("AA", "AE", "AR")


def test_old_versions_get_the_old_error_segment():
    said = reply(judge(message("QRY^Q01", version="2.3")), number=1, now=NOW).decode().split("\r")
    assert said[2] == "ERR|MSH^1^9^200&Unsupported message type&HL70357"
    said = reply(judge(message("QRY^Q01", version="2.5.1")), number=1, now=NOW).decode().split("\r")
    assert said[2] == "ERR||MSH^1^9|200^Unsupported message type^HL70357|E"


def test_an_answer_uses_the_senders_signs():
    data = GOOD.replace(b"MSH|^~\\&|", b"MSH#^~\\&#").replace(b"|", b"#")
    said = reply(judge(data), number=7, now=NOW).decode()
    assert said.startswith("MSH#^~\\&#EHR#GHH#APP#GHH#")
    assert "MSA#AA#C1" in said


def test_answers_keep_the_order_of_messages_good_and_bad(tmp_path):
    messages = [b"bad" if i % 3 == 0 else oru(i) for i in range(60)]

    async def main() -> None:
        async with listener(tmp_path) as found:
            _, answers = await send(found.port, messages, unanswered=60)
            assert [answered(answer) for answer in answers] == [
                "AE" if i % 3 == 0 else "AA" for i in range(60)
            ]
            assert [f"|C{i}\r".encode() in answers[i] for i in range(60) if i % 3] == [True] * 40

    asyncio.run(main())


def test_frames_may_come_in_any_pieces_with_noise_between(tmp_path):
    data = b"\r\n" + START + GOOD + END + b"noise" + START + oru(1) + END + b"\n"

    async def main() -> None:
        async with listener(tmp_path) as found:
            for size in (1, 7, len(data)):
                reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
                for at in range(0, len(data), size):
                    writer.write(data[at : at + size])
                    await asyncio.sleep(0)
                for _ in range(2):
                    assert b"|AA|" in await asyncio.wait_for(reader.readuntil(END), 10)
                writer.close()
            assert stored(tmp_path) == [GOOD, oru(1)] * 3
            assert found.counts["outside a frame"] >= 3

    asyncio.run(main())


def test_a_message_over_the_limit_is_refused_and_the_sender_dropped(tmp_path):
    async def main() -> None:
        async with listener(tmp_path, limits=Limits(message_bytes=1000)) as found:
            reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
            writer.write(START + GOOD + b"x" * 5000)
            assert answered((await reader.readuntil(END))[1:]) == "AE"
            assert await reader.read() == b""
            writer.close()
            assert stored(tmp_path) == []

    asyncio.run(main())


@pytest.mark.parametrize("dribble", [False, True])
def test_a_sender_without_a_whole_message_is_dropped(tmp_path, dribble):
    async def main() -> None:
        async with listener(tmp_path, limits=Limits(idle_s=0.3)) as found:
            reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
            writer.write(START)
            gone = asyncio.create_task(reader.read())
            for _ in range(100):
                if gone.done():
                    break
                if dribble:
                    writer.write(b"x")
                await asyncio.sleep(0.05)
            assert await asyncio.wait_for(gone, 1) == b""
            assert found.counts["idle"] == 1
            writer.close()

    asyncio.run(main())


def test_only_the_named_networks_may_send(tmp_path):
    assert Limits().admits("127.0.0.1")
    assert Limits().admits("::1")
    assert not Limits().admits("10.0.0.1")
    limits = Limits(allowed=networks(["10.1.0.0/16", "192.168.7.7"]))
    assert [limits.admits(peer) for peer in ("10.1.2.3", "::ffff:10.1.2.3", "192.168.7.7")] == [True] * 3
    assert [limits.admits(peer) for peer in ("10.2.0.1", "127.0.0.1", "192.168.7.8", "x")] == [False] * 4

    async def main() -> None:
        async with listener(tmp_path, limits=limits) as found:
            reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
            writer.write(START + GOOD + END)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readuntil(END)
            writer.close()
            assert found.counts == {"refused": 1}
            assert stored(tmp_path) == []

    asyncio.run(main())


def test_there_are_no_more_connections_than_allowed(tmp_path):
    async def main() -> None:
        async with listener(tmp_path, limits=Limits(connections=2)) as found:
            held = [await asyncio.open_connection("127.0.0.1", found.port) for _ in range(2)]
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await send(found.port, [GOOD], unanswered=1)
            held[0][1].close()
            await held[0][1].wait_closed()
            async with asyncio.timeout(10):
                while len(found.connections) > 1:
                    await asyncio.sleep(0.01)
            assert (await send(found.port, [GOOD], unanswered=1))[1]
            held[1][1].close()

    asyncio.run(main())


class _SlowInbox(Inbox):
    """An inbox on a disk that takes its time."""

    def append(self, messages: Sequence[bytes]) -> None:
        time.sleep(0.3)
        super().append(messages)


def test_while_the_disk_is_slow_no_more_is_read_than_the_limit_and_one_chunk(tmp_path):
    async def main() -> None:
        inbox = _SlowInbox.open(tmp_path / "inbox", clock=CLOCK)
        async with listener(tmp_path, inbox=inbox, limits=Limits(waiting_messages=8)) as found:
            sending = asyncio.create_task(send(found.port, [oru(i) for i in range(2000)], unanswered=2000))
            most = 0
            while not sending.done():
                most = max(most, *(len(connection._slots) for connection in found.connections), 0)
                await asyncio.sleep(0.02)
            _, answers = sending.result()
            assert [answered(answer) for answer in answers] == ["AA"] * 2000
            assert 8 <= most < 500  # 256 KiB, what is read at once, hold some 300

    asyncio.run(main())


class _FullInbox(Inbox):
    """An inbox whose disk is full until it is told otherwise."""

    full = True

    def append(self, messages: Sequence[bytes]) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().append(messages)


def test_a_full_disk_is_answered_and_the_listener_goes_on(tmp_path, caplog):
    async def main() -> None:
        inbox = _FullInbox.open(tmp_path / "inbox", clock=CLOCK)
        assert isinstance(inbox, _FullInbox)
        async with listener(tmp_path, inbox=inbox) as found:
            _, (answer,) = await send(found.port, [GOOD], unanswered=1)
            assert answered(answer) == "AR"  # nothing is wrong with the message: it may come again
            assert b"207^Application internal error" in answer
            inbox.full = False
            _, (answer,) = await send(found.port, [GOOD], unanswered=1)
            assert answered(answer) == "AA"

    asyncio.run(main())
    assert "inbox cannot be written" in caplog.text


def test_the_last_of_the_disk_is_left_to_the_rest_of_the_node(tmp_path):
    async def main() -> None:
        async with listener(tmp_path, inbox=opened(tmp_path, reserved=1 << 60)) as found:
            _, (answer,) = await send(found.port, [GOOD], unanswered=1)
            assert (answered(answer), stored(tmp_path)) == ("AR", [])

    asyncio.run(main())


SERVER = """
import asyncio, sys
from pathlib import Path
from node.ingest.inbox import Inbox
from node.ingest.mllp import listening
from protocols.clock import SystemClock

async def main():
    inbox = Inbox.open(Path(sys.argv[1]) / "inbox", clock=SystemClock(), max_file=100_000)
    async with listening(inbox, host="127.0.0.1", port=0, clock=SystemClock()) as found:
        print(found.port, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""

FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
"""


def test_on_a_disk_that_fills_up_what_was_acknowledged_stays_and_the_rest_is_refused(tmp_path):
    script = FULL + SERVER.replace("max_file=100_000", "max_file=10_000_000")
    server = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        messages = [oru(i) for i in range(100)]
        _, answers = asyncio.run(send(port, messages, unanswered=3))
    finally:
        server.kill()
        server.wait()
        if server.stdout:
            server.stdout.close()
    codes = [answered(answer) for answer in answers]
    taken = codes.count("AA")
    assert 10 < taken < 90
    assert codes.count("AR") == 100 - taken
    inbox = Inbox.open(tmp_path / "inbox", clock=SystemClock())
    inbox.close()
    assert stored(tmp_path) == [one for one, code in zip(messages, codes, strict=True) if code == "AA"]


def mode(accept: str, application: str, message: bytes = GOOD) -> bytes:
    """The message with MSH-15 and MSH-16."""
    header, _, rest = message.partition(b"\r")
    return header[: header.index(b"|2.5|")] + f"|2.5|||{accept}|{application}\r".encode() + rest


@pytest.mark.parametrize(
    ("accept", "application", "good", "bad"),
    [
        ("", "", "AA", "AR"),
        ("", "AL", "AA", "AR"),
        ("NE", "AL", "AA", "AR"),
        ("NE", "", "AA", "AR"),
        ("NE", "ER", None, "AR"),
        ("NE", "SU", "AA", None),
        ("NE", "NE", None, None),
        ("AL", "NE", "CA", "CR"),
        ("AL", "AL", "CA", "CR"),
        ("ER", "NE", None, "CR"),
        ("SU", "", "CA", None),
        ("what?", "NE", "AA", "AR"),
    ],
)
def test_a_sender_says_which_answers_it_wants(accept, application, good, bad):
    query = message("QRY^Q01", PID)
    assert code_of(judge(mode(accept, application))) == good
    assert code_of(judge(mode(accept, application, query))) == bad
    assert code_of(judge(mode("AL", "NE", GOOD.replace(b"|C1|", b"||")))) == "CE"


def test_a_message_that_wants_no_answer_is_stored_and_the_next_is_answered(tmp_path):
    silent, loud = mode("NE", "NE"), mode("AL", "NE")

    async def main() -> None:
        async with listener(tmp_path) as found:
            _, (answer,) = await send(found.port, [silent + b"\x0d\x1c\r\x0b" + loud], unanswered=1)
            assert answered(answer) == "CA"
            assert [one.strip(b"\r") for one in stored(tmp_path)] == [silent.strip(b"\r"), loud.strip(b"\r")]

    asyncio.run(main())


def test_a_sender_that_takes_no_answers_is_dropped_and_its_memory_is_free_again(tmp_path):
    async def main() -> None:
        limits = Limits(idle_s=0.4, connections=1, waiting_messages=64)
        async with listener(tmp_path, limits=limits) as found:
            _reader, writer = await asyncio.open_connection("127.0.0.1", found.port, limit=1024)
            writer.transport.pause_reading()
            frames = b"".join(START + b"bad" + END for _ in range(2000))
            stuck = asyncio.create_task(_flood(writer, frames))
            for _ in range(200):
                await asyncio.sleep(0.05)
                if found.counts["idle"] and not found.connections:
                    break
            assert not found.connections
            assert found.waiting == 0
            stuck.cancel()
            writer.transport.abort()
            assert (await send(found.port, [GOOD], unanswered=1))[1]  # its place is free

    asyncio.run(main())


async def _flood(writer: asyncio.StreamWriter, frames: bytes) -> None:
    try:
        while True:
            writer.write(frames)
            await writer.drain()
    except ConnectionError:
        return


def test_all_senders_together_hold_no_more_than_the_limit_and_one_chunk_each(tmp_path):
    async def main() -> None:
        inbox = _SlowInbox.open(tmp_path / "inbox", clock=CLOCK)
        limits = Limits(waiting_bytes=200_000)
        async with listener(tmp_path, inbox=inbox, limits=limits) as found:
            sending = [
                asyncio.create_task(send(found.port, [oru(1000 * k + i) for i in range(300)], unanswered=300))
                for k in range(8)
            ]
            most = 0
            while not all(task.done() for task in sending):
                most = max(most, found.waiting)
                await asyncio.sleep(0.01)
            for task in sending:
                _, answers = task.result()
                assert [answered(answer) for answer in answers] == ["AA"] * 300
            assert found.waiting == 0
            assert 200_000 <= most < 200_000 + 8 * 300_000

    asyncio.run(main())


def test_a_tls_handshake_that_does_not_go_on_is_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr("node.ingest.mllp.HANDSHAKE_S", 0.3)
    certificate, key = made_certificate(tmp_path)

    async def main() -> None:
        async with listener(tmp_path, tls=tls_context(str(certificate), str(key))) as found:
            reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
            began = time.monotonic()
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 10) == b""
            assert time.monotonic() - began < 5
            writer.close()

    asyncio.run(main())


def made_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "tls.key").write_bytes(pem)
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return folder / "tls.crt", folder / "tls.key"


def test_tls_with_certificates_on_both_sides(tmp_path):
    certificate, key = made_certificate(tmp_path)
    context = tls_context(str(certificate), str(key), clients=str(certificate))

    async def talk(port: int, client: ssl.SSLContext) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        try:
            writer.write(START + GOOD + END)
            return await reader.readuntil(END)
        finally:
            writer.close()

    async def main() -> None:
        async with listener(tmp_path, tls=context) as found:
            client = ssl.create_default_context(cafile=str(certificate))
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await talk(found.port, client)
            client.load_cert_chain(certificate, key)
            assert b"|AA|" in await talk(found.port, client)
            assert stored(tmp_path) == [GOOD]

    asyncio.run(main())


def test_a_torn_tail_is_cut_off_and_the_rest_is_ready(tmp_path):
    inbox = opened(tmp_path)
    inbox.append([GOOD, oru(1)])
    (part,) = (tmp_path / "inbox").glob("*.part")
    with part.open("ab") as file:
        file.write(START + oru(2)[:50])
    with pytest.raises(InboxBusy):
        opened(tmp_path)
    os.close(inbox._lock)  # as a crash does
    again = opened(tmp_path)
    (ready,) = again.ready()
    _, turned_away, records = read_file(ready)
    assert (records, turned_away) == (2, [])
    again.append([oru(3)])
    again.rotate()
    assert len(again.ready()) == 2
    assert len({path.name for path in again.ready()}) == 2
    again.close()


def test_a_file_is_closed_when_it_is_large_and_forgotten_when_it_is_loaded(tmp_path):
    inbox = opened(tmp_path, max_file=4000)
    for i in range(10):
        inbox.append([oru(i)])
    assert len(inbox.ready()) >= 2
    loaded: list[Path] = []

    def load(paths: Sequence[Path]) -> Sequence[Path]:
        loaded.extend(paths)
        return paths

    assert asyncio.run(load_once(inbox, load)) == len(loaded)
    assert inbox.ready() == []
    assert asyncio.run(load_once(inbox, load)) == 0
    inbox.close()


def test_what_cannot_be_loaded_is_kept(tmp_path, caplog):
    inbox = opened(tmp_path)
    inbox.append([GOOD])

    def load(paths: Sequence[Path]) -> Sequence[Path]:
        raise ValueError(SECRET)

    assert asyncio.run(load_once(inbox, load)) == 0
    assert len(inbox.ready()) == 1
    assert SECRET not in caplog.text
    assert asyncio.run(load_once(inbox, lambda paths: [])) == 0
    assert len(inbox.ready()) == 1
    inbox.close()


@pytest.mark.parametrize("after", [1, 40, 333])
def test_killed_at_any_time_no_acknowledged_message_is_lost(tmp_path, after):
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    acknowledged: set[str] = set()
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())

        async def sender(number: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            at = number * 100_000
            try:
                for _ in range(20):
                    writer.write(START + oru(at) + END)
                    at += 1
                while True:
                    answer = (await reader.readuntil(END)).decode()
                    _, code, control = answer.split("\r")[1].split("|")
                    if code == "AA":
                        acknowledged.add(control)
                    if len(acknowledged) >= after and server.poll() is None:
                        server.send_signal(signal.SIGKILL)
                    writer.write(START + oru(at) + END)
                    at += 1
            except (ConnectionError, asyncio.IncompleteReadError):
                writer.close()

        async def main() -> None:
            await asyncio.gather(*(sender(number) for number in range(4)))

        asyncio.run(main())
    finally:
        server.kill()
        server.wait()
        if server.stdout:
            server.stdout.close()
    assert len(acknowledged) >= after
    inbox = Inbox.open(tmp_path / "inbox", clock=SystemClock())
    kept: set[str] = set()
    for path in inbox.ready():
        rows, turned_away, records = read_file(path)
        assert turned_away == []  # no torn message is among them
        assert len({row["record"] for row in rows}) == records
        kept |= {line.split(b"|")[9].decode() for line in path.read_bytes().split(b"\r") if b"MSH|" in line}
    inbox.close()
    assert acknowledged <= kept
