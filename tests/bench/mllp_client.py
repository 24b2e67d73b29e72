"""A sender of HL7 v2 over MLLP that keeps some messages unanswered, as interface engines do."""

import asyncio
import time
from collections import deque

START, END = b"\x0b", b"\x1c\r"


async def send(port: int, messages: list[bytes], *, unanswered: int) -> tuple[list[float], list[bytes]]:
    """Send messages, at most `unanswered` of them ahead of their answers; return waits in s, and answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    waits: list[float] = []
    answers: list[bytes] = []
    sent: deque[float] = deque()
    try:
        at = 0
        while at < len(messages) or sent:
            while at < len(messages) and len(sent) < unanswered:
                sent.append(time.perf_counter())
                writer.write(START + messages[at] + END)
                at += 1
            answer = await reader.readuntil(END)
            waits.append(time.perf_counter() - sent.popleft())
            answers.append(answer[1:-2])
    finally:
        writer.close()
        await writer.wait_closed()
    return waits, answers


if __name__ == "__main__":  # a process of its own, so that sender and listener do not share an interpreter
    import json
    import sys

    from tests.bench.hl7v2_messages import oru

    port, senders, each, unanswered = (int(word) for word in sys.argv[1:5])

    async def main() -> None:
        begin = time.perf_counter()
        found = await asyncio.gather(
            *(
                send(port, [oru(i * each + j) for j in range(each)], unanswered=unanswered)
                for i in range(senders)
            )
        )
        seconds = time.perf_counter() - begin
        accepted = sum(b"|AA|" in answer for _, answers in found for answer in answers)
        waits = sorted(wait for some, _ in found for wait in some)
        print(json.dumps({"seconds": seconds, "accepted": accepted, "waits": waits}))

    asyncio.run(main())
