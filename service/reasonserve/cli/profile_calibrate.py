"""``profile calibrate``: measures a model's layer profile and writes it as a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from reasonserve.cli.output import err, out, table
from reasonserve.config import DEFAULT_MODEL
from reasonserve.errors import InvalidRequestError
from reasonserve.models.fingerprint import fingerprint
from reasonserve.models.progress import on_console
from reasonserve.models.resolve import resolve_model

if TYPE_CHECKING:
    from reasonalloc.profile import LayerProfile
    from reasonserve.models.calibrate import Calibration

# ReasonAlloc's, which tells layers apart best (its appendix E).
_RHO = 0.93


def calibrate(
    model: Annotated[str, typer.Argument(help="Built-in name, local folder or Hugging Face id.")] = DEFAULT_MODEL,
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file to write.")] = Path("profile.json"),
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="Probe prompts, one a line. Default: eight that are built in.")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=32, help="Most tokens to generate for each probe.")] = 512,
) -> None:
    """Measure how many tokens each layer needs while the model reasons (minutes on a CPU)."""
    # Here, not above: every other command starts without torch.
    from transformers.utils import logging

    from reasonserve.models import calibrate as measuring

    logging.disable_progress_bar()
    probes = _read_prompts(prompts) if prompts else measuring.shipped_probes()
    with on_console(err) as progress:
        folder = resolve_model(model, progress)
    with _bars() as tick:
        calibration = measuring.calibrate(folder, probes, tokens, tick)
    name = folder.name if Path(model).is_dir() else model
    profile = to_profile(calibration, model_name=name, model_fingerprint=fingerprint(folder))
    output.write_text(profile.to_json())
    _show(profile, calibration)
    out.print(f"Written to {output}. Upload it with: reasonserve profile upload {output} --activate", soft_wrap=True)


def to_profile(calibration: Calibration, *, model_name: str, model_fingerprint: str) -> LayerProfile:
    """The profile that a calibration amounts to, dated today."""
    from reasonalloc.profile import PROFILE_RHOS, LayerProfile

    by_rho = {rho: calibration.curve(rho) for rho in PROFILE_RHOS}
    return LayerProfile(
        model_fingerprint=model_fingerprint,
        model_name=model_name,
        num_layers=len(by_rho[_RHO]),
        num_kv_heads=calibration.num_kv_heads,
        demand=by_rho[_RHO],
        demand_by_rho=by_rho,
        rho=_RHO,
        probes_digest=calibration.probes_digest,
        created=datetime.now(UTC).date().isoformat(),
        tool_version=version("reasonserve"),
    )


def _read_prompts(file: Path) -> list[str]:
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"Cannot read {file}: {error}. Name a text file with one prompt a line.") from error
    return [line.strip() for line in lines if line.strip()]


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


def _show(profile: LayerProfile, calibration: Calibration) -> None:
    shown = table("layer", *(f"rho {rho}" for rho in profile.demand_by_rho), "weight")
    for layer, weight in enumerate(profile.layer_weights()):
        shares = (f"{demand[layer]:.1%}" for demand in profile.demand_by_rho.values())
        shown.add_row(str(layer), *shares, f"{weight:.2f}")
    out.print(shown)
    counts = ", ".join(map(str, calibration.generated_tokens))
    out.print(f"Share of the context that covers rho of the attention; probes of {counts} tokens.", soft_wrap=True)
    out.print(f"Spearman between halves of the probes at rho {profile.rho}: {calibration.agreement(profile.rho):.3f}")
