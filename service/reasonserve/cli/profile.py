"""``profile``: layer profiles, which spread a request's budget over the model's layers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reasonserve.api.v1 import profile_service_pb2 as pb
from reasonserve.cli import client, options
from reasonserve.cli.output import out, print_json, table
from reasonserve.cli.profile_calibrate import calibrate
from reasonserve.cli.profile_show import diff, plot, read_profile, show_profile
from reasonserve.errors import InvalidRequestError
from reasonserve.stack.profiles import parts

app = typer.Typer(no_args_is_help=True, help="Calibrate, compare, upload and activate layer profiles.")
app.command(epilog="Example: reasonserve profile calibrate --kind sensitivity -o sensitivity.json")(calibrate)
app.command(epilog="Example: reasonserve profile plot wave.json sensitivity.json -o profiles.png")(plot)
app.command(epilog="Example: reasonserve profile diff wave.json sensitivity.json")(diff)

ProfileId = Annotated[str, typer.Argument(metavar="PROFILE", help="The profile's id, from `profile list`.")]


@app.command(epilog="Example: reasonserve profile upload wave.json --activate")
def upload(
    file: Annotated[Path, typer.Argument(help="JSON file made by `profile calibrate`.")],
    activate: Annotated[bool, typer.Option("--activate", help="Make it the one that new engines load.")] = False,
    controller: options.Controller = None,
    admin_token: options.AdminToken = None,
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Upload a profile. Uploading the same content twice changes nothing."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"Cannot read {file}: {error.strerror}. Name a profile's JSON file.") from error
    with client.admin(controller, admin_token, state_dir) as admin:
        stored = admin.call(admin.services.profiles.UploadProfile, parts(content))
        if activate:
            request = pb.ActivateProfileRequest(profile_id=stored.profile.profile_id)
            stored = admin.call(admin.services.profiles.ActivateProfile, request)
    if as_json:
        print_json(stored)
    else:
        _show([stored.profile])


@app.command("list", epilog="Example: reasonserve profile list")
def list_profiles(
    controller: options.Controller = None,
    admin_token: options.AdminToken = None,
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """List all profiles, newest first."""
    with client.admin(controller, admin_token, state_dir) as admin:
        listed = admin.call(admin.services.profiles.ListProfiles, pb.ListProfilesRequest())
    if as_json:
        print_json(listed)
    else:
        _show(listed.profiles)


@app.command(epilog="Example: reasonserve profile activate 3f2a9c11d0e4")
def activate(
    profile_id: ProfileId,
    controller: options.Controller = None,
    admin_token: options.AdminToken = None,
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a profile the one that new engines of its model load."""
    with client.admin(controller, admin_token, state_dir) as admin:
        request = pb.ActivateProfileRequest(profile_id=profile_id)
        activated = admin.call(admin.services.profiles.ActivateProfile, request)
    if as_json:
        print_json(activated)
    else:
        _show([activated.profile])


@app.command(epilog="Example: reasonserve profile delete 3f2a9c11d0e4")
def delete(
    profile_id: ProfileId,
    controller: options.Controller = None,
    admin_token: options.AdminToken = None,
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete a profile that is not active."""
    with client.admin(controller, admin_token, state_dir) as admin:
        deleted = admin.call(admin.services.profiles.DeleteProfile, pb.DeleteProfileRequest(profile_id=profile_id))
    if as_json:
        print_json(deleted)
    else:
        out.print(f"Deleted {profile_id}.")


@app.command(epilog="Example: reasonserve profile show profile.json")
def show(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="A file, or the id of an uploaded profile.")],
    controller: options.Controller = None,
    admin_token: options.AdminToken = None,
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show each layer's share, and how stable it was."""
    from reasonalloc.profile import LayerProfile

    if Path(profile).is_file():
        show_profile(read_profile(Path(profile)), as_json)
        return
    with client.admin(controller, admin_token, state_dir) as admin:
        stored = admin.call(admin.services.profiles.GetProfile, pb.GetProfileRequest(profile_id=profile))
    show_profile(LayerProfile.from_json(stored.content.decode()), as_json)


def _show(profiles: list[pb.Profile]) -> None:
    if not profiles:
        out.print("No profiles yet: `reasonserve profile upload FILE` uploads one.")
        return
    shown = table("profile", "model", "fingerprint", "layers", "active", "uploaded")
    shown.columns[0].no_wrap = shown.columns[2].no_wrap = True  # to be copied
    for profile in profiles:
        shown.add_row(
            profile.profile_id,
            profile.model_name,
            profile.model_fingerprint,
            str(profile.num_layers),
            "yes" if profile.active else "no",
            f"{profile.create_time.ToDatetime():%Y-%m-%d %H:%M} UTC",
        )
    out.print(shown)
