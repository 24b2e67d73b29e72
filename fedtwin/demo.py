"""`fedtwin demo`: six steps through the network, each with the real command; then nothing runs any more."""

from __future__ import annotations

import json
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from fedtwin import connect
from fedtwin.client import Client
from fedtwin.count_results import CountResult
from fedtwin.demo_material import Material, heart, invented
from fedtwin.demo_report import CountReport, Report, TrainingReport, show
from fedtwin.progress import Bar, step
from fedtwin.screen import say
from fedtwin.terms import Terms
from fedtwin.yardsticks import Split, local_only, of_model, pooled, textbook, with_own_intercept
from protocols.clock import SystemClock
from protocols.study import Study
from sim.network import LocalNetwork

STEPS = 6
COUNT_EPSILON = 0.5
COUNT_DELTA = 1e-6
TIMING_EPSILON = 0.02  # a question only asked to see how long an answer takes
TIMED_QUESTIONS = 15
SITES_PER_PATIENT = 1  # in both materials no patient is in two hospitals
AT_ONCE = 2  # commands side by side: each is a process, and a laptop has few cores


def run_demo(*, data: Path | None, keep: Path, seed: int, as_json: bool) -> None:
    """Run the demo and print what came out. Whatever happens, nothing keeps running."""
    folder = keep / SystemClock().now().strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    material = heart(data, folder / "input") if data else invented(folder / "input", seed=seed)
    say(f"[bold]fedtwin demo[/bold]: {len(material.sites)} hospitals, everything below {folder}\n")
    with _stoppable(), LocalNetwork(folder, material.sites) as network:
        try:
            report = _Demo(network, material).run()
        except BaseException:
            network.stop()
            say(f"\nEverything was stopped. The logs are in {network.logs}")
            raise
    show(report, as_json=as_json)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM unwind like Ctrl-C does, so that what was started is stopped."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass
class _Demo:
    network: LocalNetwork
    material: Material
    splits: list[Split] = field(default_factory=list)
    exact: int = 0

    def run(self) -> Report:
        """Take the six steps."""
        started = time.monotonic()
        network, material = self.network, self.material
        slugs = list(network.sites)
        with step("start a coordinator: its keys, its broker, its SuperLink", number=1, of=STEPS):
            network.start_coordinator()
            network.add_researcher(project=self.study.project)
        with step(f"enrol {len(slugs)} hospitals, each with a one-time token", number=2, of=STEPS) as line:
            _each(slugs, network.enrol, line, "enrolled")
        with step("take in files, remove identity, load OMOP; start the nodes", number=3, of=STEPS) as line:
            taken_in = dict(zip(slugs, _each(slugs, network.ingest, line, "taken in"), strict=True))
            self._look_at_everything(slugs)
            for slug in slugs:
                network.start_node(slug)
            network.wait_for_nodes()
        with step("ask a private count and a breakdown across all hospitals", number=4, of=STEPS) as line:
            answer, _ = self._ask(COUNT_EPSILON, line)
            by_sex = self.client.breakdown(self.material.cohort, by="sex", **self._terms(COUNT_EPSILON, line))
        with step("train one private model across all hospitals, through Flower", number=5, of=STEPS) as line:
            training = self._train(slugs, line)
        with step("time answers, check every ledger and audit trail, stop", number=6, of=STEPS) as line:
            times_ms = self._times_ms(line)
            budgets = {slug: self._ask_node(slug, "budget") for slug in slugs}
            audits = {slug: self._ask_node(slug, "audit", "verify") for slug in slugs}
            at_delta = max(budget["delta"] for budget in budgets.values())  # one policy, so one delta
            spent = self.client.budget(self.study.project, delta=at_delta)
            network.stop()
        return Report(
            hospitals=[
                {"name": slug, "title": network.sites[slug].title, **taken_in[slug]} for slug in slugs
            ],
            count=CountReport(
                answer=answer,
                truth={"exact in the stores": self.exact, **material.truth},
                p50_ms=statistics.median(times_ms),
                p95_ms=times_ms[int(0.95 * (len(times_ms) - 1))],
                asked=len(times_ms) + 1,
            ),
            by_sex=by_sex,
            spent=spent,
            training=training,
            budgets=budgets,
            audits=audits,
            folder=network.folder,
            why_pooled=material.why_pooled,
            question=material.question,
            seconds=time.monotonic() - started,
        )

    @property
    def client(self) -> Client:
        """The researcher's client."""
        return connect(self.network.researcher_profile)

    @property
    def study(self) -> Study:
        """The plan."""
        return Study.parse(self.material.study.read_bytes())

    def _ask_node(self, slug: str, *verb: str) -> Any:
        return self.network.fedtwin_json(["node", *verb, "--home", str(self.network.node_home(slug))])

    def _look_at_everything(self, slugs: Sequence[str]) -> None:
        """Read what only a demo may see: every hospital's rows, for the exact count and the pooled row."""
        from fedtwin.node_ingest import open_store
        from fedtwin.patient_groups import groups_of
        from node.features.splitting import in_training
        from node.features.study_rows import feature_table
        from node.keys import NodeKeys
        from node.queries import cohort as cohorts
        from node.serve import split_key
        from protocols.cohort import Cohort

        study = self.study
        question = Cohort.parse(self.material.cohort)
        for slug in slugs:
            home = self.network.node_home(slug)
            with open_store(home, read_only=True) as store:
                table = feature_table(study, store)
                self.exact += cohorts.count(question, store)
                key = split_key(NodeKeys.load(home / "keys").pseudonym)
                training = in_training(table.person_ids, key=key, fraction=study.training.train_fraction)
                groups = groups_of(study, table.rows(~training), store)
            x, y = table.x.astype(np.float64), table.y.astype(np.float64)
            self.splits.append(Split(slug, x[training], y[training], x[~training], y[~training], groups))

    def _ask(self, epsilon: float, line: Bar) -> tuple[CountResult, float]:
        """Ask the question; return the answer and how long it took at the client, in milliseconds."""
        began = time.monotonic()
        answer = self.client.count(self.material.cohort, **self._terms(epsilon, line))
        return answer, (time.monotonic() - began) * 1000

    def _terms(self, epsilon: float, line: Bar) -> Terms:
        return {
            "epsilon": epsilon,
            "delta": COUNT_DELTA,
            "project": self.study.project,
            "max_sites_per_patient": SITES_PER_PATIENT,
            "progress": lambda stage, sites: line.describe(f"{stage} ({sites} hospitals)"),
        }

    def _times_ms(self, line: Bar) -> list[float]:
        """Return how long answers took, ascending. Asked when the nodes have nothing else to do.

        Each at an epsilon of its own: the same question again would be answered without asking anybody.
        """
        epsilons = [TIMING_EPSILON + number * 1e-4 for number in range(TIMED_QUESTIONS)]
        return sorted(self._ask(epsilon, line)[1] for epsilon in epsilons)

    def _train(self, slugs: Sequence[str], line: Bar) -> TrainingReport:
        from fedtwin.demo_training_report import write_page
        from fedtwin.training_run import run_study

        def approve(slug: str) -> str:
            home = str(self.network.node_home(slug))
            return self.network.fedtwin(["node", "approve", str(self.material.study), "--home", home])

        _each(slugs, approve, line, "approved")
        run = run_study(
            self.study,
            home=self.network.coordinator_home,
            watch=lambda status: line.describe(f"round {status.round} of {status.rounds}"),
        )
        (self.network.folder / "model.json").write_text(json.dumps(run.to_json(), indent=2) + "\n")
        weights = np.array(run.parameters)
        found = TrainingReport(
            local=local_only(self.splits),
            federated=of_model(weights, self.splits),
            own_intercept=with_own_intercept(weights, self.splits),
            pooled=pooled(self.splits),
            textbook=of_model(textbook(run.columns), self.splits) if self.material.has_textbook else None,
            epsilon=run.epsilon,
            delta=run.delta,
            rounds=run.rounds,
            steps=run.steps,
            seconds_per_round=run.seconds_per_round,
        )
        write_page(
            run.run,
            home=self.network.coordinator_home,
            to=self.network.folder,
            found=found,
            splits=self.splits,
            why_pooled=self.material.why_pooled,
        )
        return found


def _each(slugs: Sequence[str], work: Callable[[str], Any], line: Bar, done: str) -> list[Any]:
    """Do `work` for every hospital, a few at a time, saying how far it is."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = []
        for number, result in enumerate(pool.map(work, slugs), start=1):
            line.describe(f"{number} of {len(slugs)} {done}")
            results.append(result)
        return results
