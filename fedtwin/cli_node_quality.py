"""`fedtwin node quality`: the OHDSI Data Quality Dashboard's checks on this hospital's data, as a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.cli_node_records import require_node
from fedtwin.options import NODE_HOME, Json, NodeHome
from fedtwin.screen import emit_fields, emit_json, emit_table, say

_SHOWN = 20  # failed checks on the screen; all of them are in --json and --html


def quality(
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write the report as one page.")
    ] = None,
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Check the data, and keep the report: studies may depend on it (\\[quality] in policy.toml)."""
    from fedtwin.node_quality import check, verdict
    from node.quality.page import page

    require_node(home)
    report = check(home)
    report["policy"] = verdict(home, report)
    if html is not None:
        html.write_text(page(report), encoding="utf-8")
    if json:
        emit_json(report)
        return
    summary, mapped = report["summary"], report["mapping"]
    emit_fields(
        {
            "checks passed": f"{summary['passed']} of {summary['passed'] + summary['failed']}",
            "pass rate": _share(summary["pass_rate"]),
            "not applicable": summary["not_applicable"],
            "records mapped": _share(mapped["share"]),
            "studies": report["policy"]["says"],
        }
    )
    failed = [check for check in report["checks"] if check["status"] in ("failed", "error")]
    failed.sort(key=lambda check: -check["failing_percent"])
    if failed:
        emit_table(
            ("table", "field", "check", "failing", "of", "percent", "at most"),
            [
                (c["table"], c["field"] or "-", c["check"], c["failing"], c["of"],
                 f"{c['failing_percent']:.2f}", f"{c['limit_percent']:g}")
                for c in failed[:_SHOWN]
            ],
            title=f"failed: {len(failed)}",
        )  # fmt: skip
    if mapped["top_unmapped"]:
        emit_table(
            ("table", "source code", "records"),
            [(code["table"], code["code"], code["records"]) for code in mapped["top_unmapped"]],
            title="not mapped",
        )
    if html is not None:
        say(f"Wrote {html}.")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
