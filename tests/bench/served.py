"""A network whose hospitals serve stores that a benchmark has made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sim.network import LocalNetwork, Site


@contextmanager
def serving(folder: Path, stores: Sequence[Path]) -> Iterator[LocalNetwork]:
    """Yield a network in `folder` with one connected hospital per store; the stores are moved into it."""
    sites = [Site(f"site-{i}", f"Site {i}", folder) for i in range(len(stores))]
    with LocalNetwork(folder, sites) as network:
        network.start_coordinator()
        for site, path in zip(sites, stores, strict=True):
            network.enrol(site.slug)
            target = network.node_home(site.slug) / "store" / "omop.duckdb"
            target.parent.mkdir(exist_ok=True, mode=0o700)
            target.unlink(missing_ok=True)
            path.rename(target)
            network.start_node(site.slug)
        network.wait_for_nodes()
        yield network
