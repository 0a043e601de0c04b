"""Plans as rows of text, for a terminal and for the documentation."""

from __future__ import annotations

from collections.abc import Iterable

from reasonserve.plan.sizing import Plan

GIB = 1 << 30
COLUMNS = ("model", "GPU", "pool slots", "budget", "slots each", "at a time", "gain", "replicas")
"""In brackets the figure for requests without a budget."""


def cells(plan: Plan) -> tuple[str, ...]:
    """Returns a plan's row under `COLUMNS`."""
    name, gpu, budget = plan.model, plan.gpu, str(plan.budget_tokens)
    if not plan.bounded_requests:
        weights = f"does not fit: {plan.weight_bytes / GIB:.0f} GiB of weights"
        return name, gpu, weights, budget, f"{plan.bounded_slots} ({plan.full_slots})", "0", "-", "-"
    gain = f"{plan.bounded_requests / plan.full_requests:.1f}x" if plan.full_requests else "-"
    return (
        name,
        gpu,
        str(plan.pool_slots),
        budget,
        f"{plan.bounded_slots} ({plan.full_slots})",
        f"{plan.bounded_requests} ({plan.full_requests})",
        gain,
        f"{plan.bounded_replicas} ({plan.full_replicas or '-'})",
    )


def markdown(plans: Iterable[Plan]) -> str:
    """Returns plans as a Markdown table."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(cells, plans)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
