"""A node whose consortium encrypts does not start without the library."""

import asyncio
import subprocess
import sys
from pathlib import Path

from tests.network.consortium import Consortium

SCRIPT = """
import sys
sys.modules['Pyfhel'] = None
from fedtwin.cli import run
sys.exit(run(['node', 'serve', '--home', sys.argv[1]]))
"""


def test_a_node_without_the_library_says_which_extra_it_needs(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path, sites=1, secure_sum="bfv")
    consortium.found()

    async def enrolled() -> None:
        async with consortium.coordinator():
            await consortium.enrol(0)

    asyncio.run(enrolled())
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(consortium.node(0).path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install 'fedtwin[bfv]'" in " ".join(done.stderr.split())
