"""``doctor``: what this machine has, what it lacks, and how to get it."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.table import Table

from reasonserve.cli import options
from reasonserve.cli.checks import Check, run_checks
from reasonserve.cli.output import out

_STYLE = {"ok": "green", "warning": "yellow", "missing": "red"}


def doctor(as_json: options.AsJson = False) -> None:
    """Check this machine. Exits with 1 when something that is needed is missing."""
    checks = run_checks()
    if as_json:
        out.print_json(data=[asdict(check) for check in checks])
    else:
        out.print(_table(checks))
    if any(check.state == "missing" for check in checks):
        raise typer.Exit(1)


def _table(checks: list[Check]) -> Table:
    shown = Table("check", "state", "found", "what to do")
    for check in checks:
        shown.add_row(check.name, f"[{_STYLE[check.state]}]{check.state}[/]", check.found, check.remedy)
    return shown
