"""``model``: the built-in models, and bringing one onto this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from reasonserve.cli import options
from reasonserve.cli.output import err, out, table
from reasonserve.config import DEFAULT_MODEL
from reasonserve.models.cache import ModelCache
from reasonserve.models.fingerprint import fingerprint
from reasonserve.models.progress import on_console
from reasonserve.models.registry import BUILTIN_MODELS
from reasonserve.models.resolve import resolve_model

app = typer.Typer(no_args_is_help=True, help="Fetch and list models.")


@app.command(epilog="Example: reasonserve model fetch smollm2-135m-instruct")
def fetch(
    model: Annotated[str, typer.Argument(help="Built-in name, local folder or Hugging Face id.")] = DEFAULT_MODEL,
) -> None:
    """Bring a model onto this machine, if it is not there, and print its folder."""
    with on_console(err) as progress:
        folder = resolve_model(model, progress)
    out.print(str(folder), soft_wrap=True)


@app.command("list", epilog="Example: reasonserve model list")
def list_models(as_json: options.AsJson = False) -> None:
    """List the built-in models and whether they are here."""
    cache = ModelCache.default()
    found = [(model, cache.find(model)) for model in BUILTIN_MODELS.values()]
    if as_json:
        rows = [asdict(model) | {"folder": str(folder) if folder else None} for model, folder in found]
        out.print_json(data=rows)
        return
    shown = table("model", "architecture", "license", "download", "fingerprint")
    for model, folder in found:
        here = fingerprint(folder) if folder else "not here"
        shown.add_row(model.name, model.architecture, model.license, f"{model.size_bytes / 1e6:.0f} MB", here)
    out.print(shown)
