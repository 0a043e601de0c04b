"""How far a compressed cache moves a model from what it says with the full one. Loads torch and transformers.

Cheap and smooth, for the cache is simulated over known tokens; but it does not order methods as their answers do where
budgets are small, so it stands beside accuracy and never for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.progress import Progress
from rich.table import Table

from reasonalloc.profile import LayerProfile
from reasonserve.bench.accuracy.plan import Contender
from reasonserve.bench.accuracy.run import Bench
from reasonserve.errors import InvalidRequestError
from reasonserve.kv import triple_of
from reasonserve.models.judge import Judge
from reasonserve.models.simulate import ATTENTION, Rounds
from reasonserve.models.traces import Probe, generate, load


@dataclass(frozen=True, slots=True)
class Divergence:
    """One method on one task.

    Attributes:
        task: Name of the task.
        contender: Method and profile.
        nats: Mean Kullback-Leibler divergence per output token at each budget.
        traces: Answers that were replayed.
    """

    task: str
    contender: str
    nats: tuple[float, ...]
    traces: int


def measure(
    bench: Bench, contenders: Sequence[Contender], budgets: Sequence[int], buffer: int, progress: Progress
) -> list[Divergence]:
    """Answers each task's questions with the full cache, then replays the answers under each method.

    Raises:
        InvalidRequestError: A method's scorer carries a statistic, which no replay does, or its profile has no centres.
    """
    judged = [contender for contender in contenders if contender.method != "full"]
    bar = progress.add_task("Replaying", total=len(judged) * len(bench.tasks))
    found = []
    for name, task in bench.tasks.items():
        samples = [task.make(index) for index in range(bench.questions)]
        model = load(bench.model, "sdpa")
        probes = [Probe(name, sample.prompt) for sample in samples]
        traces = generate(model, bench.model, probes, max(map(task.limit, samples)), lambda *_: None)
        model.set_attn_implementation(ATTENTION)
        for contender in judged:
            nats = _divergences(model, traces, bench, contender, budgets, buffer)
            found.append(Divergence(name, str(contender), tuple(nats), len(traces)))
            progress.advance(bar)
    return found


def _divergences(
    model: Any, traces: Any, bench: Bench, contender: Contender, budgets: Sequence[int], buffer: int
) -> list[float]:
    triple = triple_of(contender.method)
    assert triple is not None, "full was left out"
    text = bench.profiles.get(contender.profile)
    profile = LayerProfile.from_json(text) if text else None
    centres = profile.queries if profile else None
    try:
        rounds = [Rounds(triple.scorer, budget, buffer, centres=centres) for budget in budgets]
    except ValueError as error:
        raise InvalidRequestError(f"{contender} cannot be replayed: {error}.") from error
    return Judge(model, traces, rounds, triple).divergences(profile)


def table(found: Sequence[Divergence], budgets: Sequence[int]) -> Table:
    """Returns a line for each method, a column for each budget."""
    shown = Table(title="Divergence from the full cache, nats per token, evictable prompt", title_justify="left")
    for column in ("task", "method", "traces", *map(str, budgets)):
        shown.add_column(column, justify="left" if column in ("task", "method") else "right")
    for row in found:
        shown.add_row(row.task, row.contender, str(row.traces), *(f"{value:.3f}" for value in row.nats))
    return shown
