"""A network whose hospitals serve stores that a benchmark has made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sim.network import LocalNetwork, Site


@contextmanager
def serving(
    folder: Path, stores: Sequence[Path], *, grid_ms: int = 0, profiles: Sequence[Path] = ()
) -> Iterator[LocalNetwork]:
    """Yield a network in `folder` with one connected hospital per store; the stores are moved into it.

    Besides the network's own researcher there is one for each of `profiles`.
    Answers leave at once unless a grid of time is asked for: what is measured is how long they take.
    """
    sites = [Site(f"site-{i}", f"Site {i}", folder) for i in range(len(stores))]
    with LocalNetwork(folder, sites) as network:
        network.start_coordinator()
        network.add_researcher()
        for i, profile in enumerate(profiles):
            network.add_researcher(f"researcher-{i}", profile=profile)
        for site, path in zip(sites, stores, strict=True):
            network.enrol(site.slug)
            policy = network.node_home(site.slug) / "policy.toml"
            demo, ours = "answer_grid_ms = 50\n", f"answer_grid_ms = {grid_ms}\n"
            assert demo in policy.read_text()
            policy.write_text(policy.read_text().replace(demo, ours))
            target = network.node_home(site.slug) / "store" / "omop.duckdb"
            target.parent.mkdir(exist_ok=True, mode=0o700)
            target.unlink(missing_ok=True)
            path.rename(target)
            network.start_node(site.slug)
        network.wait_for_nodes()
        yield network
