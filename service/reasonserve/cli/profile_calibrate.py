"""``profile calibrate``: measures a model's layer profile and writes it as a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from reasonserve.cli.output import err, out
from reasonserve.cli.profile_show import show_profile
from reasonserve.config import DEFAULT_MODEL
from reasonserve.errors import InvalidRequestError
from reasonserve.models.fingerprint import fingerprint
from reasonserve.models.progress import on_console
from reasonserve.models.resolve import resolve_model

if TYPE_CHECKING:
    from reasonalloc.profile import LayerProfile
    from reasonserve.models.calibrate import Calibration
    from reasonserve.models.sensitivity import Sensitivity
    from reasonserve.models.traces import Probe, Tick

# ReasonAlloc's, which tells layers apart best (its appendix E).
_RHO = 0.93


class Kind(StrEnum):
    """What a profile goes by."""

    WAVE = "wave"
    SENSITIVITY = "sensitivity"


def calibrate(
    model: Annotated[str, typer.Argument(help="Built-in name, local folder or Hugging Face id.")] = DEFAULT_MODEL,
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file to write.")] = Path("profile.json"),
    kind: Annotated[
        Kind,
        typer.Option("--kind", help="wave: by how attention is spread. sensitivity: by what the model loses; slower."),
    ] = Kind.WAVE,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help="At most 8 prompts, one a line, or TASK<tab>PROMPT. Default: built in."),
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=32, help="Most tokens to generate for each probe.")] = 512,
    evaluations: Annotated[
        int, typer.Option("--evaluations", min=10, help="Splits that a sensitivity search tries.")
    ] = 60,
    scorer: Annotated[str, typer.Option("--scorer", help="Scorer that a sensitivity search is judged under.")] = "rkv",
) -> None:
    """Measure how a budget is best spread over a model's layers (minutes on a CPU)."""
    _check_scorer(scorer)
    # Here, not above: every other command starts without torch.
    from transformers.utils import logging

    logging.disable_progress_bar()
    probes = _read_probes(prompts)
    with on_console(err) as progress:
        folder = resolve_model(model, progress)
    with _bars() as tick:
        made = _measure(kind, folder, probes, tokens, evaluations, scorer, tick)
    name = folder.name if Path(model).is_dir() else model
    profile = to_profile(made, model_name=name, model_fingerprint=fingerprint(folder))
    output.write_text(profile.to_json())
    show_profile(profile)
    out.print(f"Probes of {', '.join(map(str, made.generated_tokens))} tokens.", soft_wrap=True)
    out.print(f"Written to {output}. Upload it with: reasonserve profile upload {output} --activate", soft_wrap=True)


def _check_scorer(scorer: str) -> None:
    from reasonalloc.errors import MethodError
    from reasonalloc.methods import SCORERS, check_name

    try:
        check_name("--scorer", scorer, SCORERS)
    except MethodError as error:
        raise InvalidRequestError(f"{error}.") from error


def _measure(
    kind: Kind, folder: Path, probes: list[Probe], tokens: int, evaluations: int, scorer: str, tick: Tick
) -> Calibration | Sensitivity:
    if kind is Kind.WAVE:
        from reasonserve.models.calibrate import calibrate as measure_wave

        return measure_wave(folder, probes, tokens, tick)
    from reasonserve.models.sensitivity import METHOD, calibrate_sensitivity

    return calibrate_sensitivity(folder, probes, tokens, evaluations, tick, replace(METHOD, scorer=scorer))


def to_profile(made: Calibration | Sensitivity, *, model_name: str, model_fingerprint: str) -> LayerProfile:
    """The profile that a calibration amounts to, dated today."""
    from reasonalloc.profile import PROFILE_RHOS, LayerProfile
    from reasonserve.models.sensitivity import Sensitivity

    searched = isinstance(made, Sensitivity)
    by_rho = {} if isinstance(made, Sensitivity) else {rho: made.curve(rho) for rho in PROFILE_RHOS}
    demand = made.shares if isinstance(made, Sensitivity) else by_rho[_RHO]
    return LayerProfile(
        model_fingerprint=model_fingerprint,
        model_name=model_name,
        num_layers=len(demand),
        num_kv_heads=made.num_kv_heads,
        demand=demand,
        demand_by_rho=by_rho,
        rho=0.0 if searched else _RHO,
        gamma=1.0 if searched else 0.5,
        kind="sensitivity" if searched else "wave",
        evidence=made.evidence if isinstance(made, Sensitivity) else made.evidence(_RHO),
        queries=made.queries,
        head_shares=made.head_shares if isinstance(made, Sensitivity) else (),
        probes_digest=made.probes_digest,
        created=datetime.now(UTC).date().isoformat(),
        tool_version=version("reasonserve"),
    )


def _read_probes(file: Path | None) -> list[Probe]:
    from reasonserve.models.traces import read_probes, shipped_probes

    if file is None:
        return shipped_probes()
    try:
        return read_probes(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"Cannot read {file}: {error}. Name a text file with one prompt a line.") from error


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """One bar for each phase."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as bars:
        tasks = {}

        def tick(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase)
            bars.update(tasks[phase], completed=done, total=total)

        yield tick
