"""Profiles for people: ``profile show``, ``profile diff`` and ``profile plot`` of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reasonserve.cli.output import out, table
from reasonserve.errors import InvalidRequestError

if TYPE_CHECKING:
    from reasonalloc.profile import LayerProfile

_BAR_WIDTH = 12

ProfileFile = Annotated[Path, typer.Argument(help="JSON file made by `profile calibrate`.")]


def read_profile(file: Path) -> LayerProfile:
    """Reads a profile's file.

    Raises:
        InvalidRequestError: It cannot be read, or holds no profile; says why.
    """
    from reasonalloc.errors import ProfileError
    from reasonalloc.profile import LayerProfile

    try:
        return LayerProfile.from_json(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"Cannot read {file}: {error}. Name a profile's JSON file.") from error
    except ProfileError as error:
        raise InvalidRequestError(f"{file} holds no layer profile: {error}.") from error


def show_profile(profile: LayerProfile, as_json: bool = False) -> None:
    """Prints a profile: what it is, how stable, and each layer's share as a number and a bar."""
    if as_json:
        out.print_json(profile.to_json())
        return
    from reasonalloc.methods import PROFILE_PARTS
    from reasonalloc.profile import PROFILE_KINDS

    out.print(f"{profile.profile_id}  {profile.kind}: {PROFILE_KINDS[profile.kind]}", soft_wrap=True)
    out.print(
        f"{profile.model_name} ({profile.model_fingerprint}), {profile.num_layers} layers, {profile.num_kv_heads} kv "
        f"heads; made {profile.created} by {profile.tool_version} on probes {profile.probes_digest[:12]}",
        soft_wrap=True,
    )
    out.print(f"power {profile.gamma}, shares between {profile.floor} and {profile.ceiling} of the mean")
    out.print(f"holds {', '.join(PROFILE_PARTS[part] for part in PROFILE_PARTS if part in profile.parts)}")
    heads = ["of its kv heads"] if profile.head_shares else []
    shown = table("layer", *(f"rho {rho}" for rho in profile.demand_by_rho), *heads, "share", "")
    shown.columns[-1].justify = "left"
    for layer, weight in enumerate(profile.layer_weights()):
        demands = (f"{demand[layer]:.1%}" for demand in profile.demand_by_rho.values())
        bar = "█" * round(weight / profile.ceiling * _BAR_WIDTH)
        of_heads = [" ".join(f"{share:.2f}" for share in row) for row in profile.head_shares[layer : layer + 1]]
        shown.add_row(str(layer), *demands, *of_heads, f"{weight:.2f}", bar)
    out.print(shown)
    for name, figure in profile.evidence.items():
        out.print(f"{name.replace('_', ' ')}: {figure:g}")


def diff(
    first: ProfileFile,
    second: ProfileFile,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Compare two profiles' shares, layer by layer."""
    profiles = [read_profile(file) for file in (first, second)]
    compared = difference(*profiles)
    if as_json:
        out.print_json(json.dumps(compared))
        return
    shown = table("layer", *(f"{profile.profile_id} {profile.kind}" for profile in profiles), "difference")
    for layer, (one, two) in enumerate(zip(compared["first"], compared["second"], strict=True)):
        shown.add_row(str(layer), f"{one:.2f}", f"{two:.2f}", f"{two - one:+.2f}")
    out.print(shown)
    out.print(f"Spearman between them: {compared['spearman']:.3f}; cells that move: {compared['moved']:.1%}")
    if not compared["same_model"]:
        out.print("They are of different models.")


def difference(first: LayerProfile, second: LayerProfile) -> dict[str, Any]:
    """How two profiles differ.

    Returns:
        Shares ``first`` and ``second``, their ``spearman`` correlation, the share of a budget's cells that ``moved``
        to other layers, and whether they are of the ``same_model``.

    Raises:
        InvalidRequestError: They have different numbers of layers.
    """
    from reasonserve.models.stability import spearman

    if first.num_layers != second.num_layers:
        raise InvalidRequestError(
            f"The profiles have {first.num_layers} and {second.num_layers} layers; compare two of one model."
        )
    shares = first.layer_weights(), second.layer_weights()
    moved = sum(abs(one - two) for one, two in zip(*shares, strict=True)) / 2 / first.num_layers
    return {
        "first": shares[0],
        "second": shares[1],
        "spearman": spearman(*shares),
        "moved": moved,
        "same_model": first.model_fingerprint == second.model_fingerprint,
    }


def plot(
    files: Annotated[list[Path], typer.Argument(help="JSON files made by `profile calibrate`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file to write.")] = Path("profile.png"),
) -> None:
    """Draw the shares of one or several profiles, and the demand at every rho, as a PNG."""
    draw([read_profile(file) for file in files], output)
    out.print(f"Written to {output}.", soft_wrap=True)


def draw(profiles: list[LayerProfile], output: Path) -> None:
    """Draws profiles: shares of the budget above; below, demand at each rho of those that have it.

    Raises:
        InvalidRequestError: matplotlib is missing, or the file cannot be written.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise InvalidRequestError("Plots need matplotlib; pip install matplotlib.") from error
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (shares, demands) = pyplot.subplots(2, 1, figsize=(8, 7), sharex=True, layout="constrained")
    for profile in profiles:
        label = f"{profile.model_name} {profile.kind} {profile.profile_id}"
        shares.step(range(profile.num_layers), profile.layer_weights(), where="mid", label=label)
        for rho, demand in profile.demand_by_rho.items():
            demands.plot(range(profile.num_layers), demand, marker=".", label=f"{profile.profile_id} rho {rho}")
    shares.axhline(1.0, color="grey", linestyle=":")
    shares.set(ylabel="share of the mean budget", title="Layer profiles")
    demands.set(xlabel="layer", ylabel="share of the context")
    shares.legend(fontsize="x-small")
    if demands.lines:
        demands.legend(fontsize="x-small", ncols=2)
    try:
        figure.savefig(output, dpi=150)
    except (OSError, ValueError) as error:
        raise InvalidRequestError(
            f"Cannot write {output}: {error}. Name a PNG file in a folder that exists."
        ) from error
    finally:
        pyplot.close(figure)
