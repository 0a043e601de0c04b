"""ProfileService over a real connection."""

import asyncio
import hashlib

import grpc
import pytest

from reasonalloc.profile import PROFILE_RHOS, LayerProfile
from reasonserve import errors, status
from reasonserve.api.v1 import profile_service_pb2 as pb
from reasonserve.models.fingerprint import fingerprint
from reasonserve.models.profiles import shipped_profile
from reasonserve.stack.profiles import ensure_active


def _content(model="fingerprint-0", gamma=0.5):
    demand = (0.4, 0.2, 0.1)
    profile = LayerProfile(
        model_fingerprint=model,
        model_name="Model",
        num_layers=3,
        num_kv_heads=2,
        demand=demand,
        demand_by_rho=dict.fromkeys(PROFILE_RHOS, demand),
        probes_digest="0" * 64,
        created="2026-01-02",
        tool_version="1",
        gamma=gamma,
    )
    return profile.to_json().encode()


def _parts(content, size=100, digest=None):
    first = hashlib.sha256(content).hexdigest() if digest is None else digest
    for start in range(0, max(1, len(content)), size):
        yield pb.UploadProfileRequest(sha256=first if start == 0 else "", content=content[start : start + size])


async def _upload(cluster, parts):
    return (await cluster.call(cluster.stubs.profiles.UploadProfile, parts)).profile


async def _fails(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return status.from_rpc_error(caught.value)


async def test_an_uploaded_profile_comes_back_byte_for_byte(cluster):
    content = _content()
    stored = await _upload(cluster, _parts(content))
    assert stored.profile_id == hashlib.sha256(content).hexdigest()[:12]
    assert stored.profile_id == LayerProfile.from_json(content.decode()).profile_id
    assert (stored.model_fingerprint, stored.model_name, stored.num_layers) == ("fingerprint-0", "Model", 3)
    assert not stored.active
    assert stored.HasField("create_time")
    got = await cluster.call(cluster.stubs.profiles.GetProfile, pb.GetProfileRequest(profile_id=stored.profile_id))
    assert (got.profile, got.content) == (stored, content)


async def test_uploading_twice_changes_nothing(cluster):
    first = await _upload(cluster, _parts(_content()))
    revision = cluster.controller.ledger.state.revision
    assert await _upload(cluster, _parts(_content(), size=7)) == first
    assert cluster.controller.ledger.state.revision == revision


async def test_activating_moves_the_model_to_another_profile(cluster):
    profiles = cluster.stubs.profiles
    first = await _upload(cluster, _parts(_content()))
    second = await _upload(cluster, _parts(_content(gamma=1.0)))
    other = await _upload(cluster, _parts(_content(model="fingerprint-1")))
    for profile in (first, other, second):
        request = pb.ActivateProfileRequest(profile_id=profile.profile_id)
        assert (await cluster.call(profiles.ActivateProfile, request)).profile.active
    active = await cluster.call(profiles.GetProfile, pb.GetProfileRequest(model_fingerprint="fingerprint-0"))
    assert active.profile.profile_id == second.profile_id
    listed = (await cluster.call(profiles.ListProfiles, pb.ListProfilesRequest())).profiles
    assert [profile.profile_id for profile in listed] == [p.profile_id for p in (other, second, first)]
    assert [profile.active for profile in listed] == [True, True, False]


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        (lambda: _parts(_content(), digest="0" * 64), "sha256"),
        (lambda: _parts(_content(), digest=""), "sha256"),
        (lambda: iter(()), "sha256"),
        (lambda: _parts(b"{}"), "content"),
        (lambda: _parts(b"\xff"), "content"),
        (lambda: _parts(_content() + b"\n"), "content"),
        (lambda: _parts(b"x" * ((1 << 20) + 1), size=2 << 20), "content"),
        (lambda: _parts(b"x" * (17 << 20), size=1 << 20), "content"),
    ],
    ids=["wrong digest", "no digest", "nothing", "no profile", "no text", "not canonical", "large part", "large"],
)
async def test_what_is_no_profile_is_refused(cluster, parts, field):
    error = await _fails(_upload(cluster, parts()))
    assert (type(error), error.field) == (errors.InvalidRequestError, field)
    assert not (await cluster.call(cluster.stubs.profiles.ListProfiles, pb.ListProfilesRequest())).profiles


async def test_what_does_not_exist_is_not_found(cluster):
    await _upload(cluster, _parts(_content()))
    profiles = cluster.stubs.profiles
    for call, request in (
        (profiles.GetProfile, pb.GetProfileRequest(profile_id="0" * 12)),
        (profiles.GetProfile, pb.GetProfileRequest(model_fingerprint="fingerprint-0")),
        (profiles.ActivateProfile, pb.ActivateProfileRequest(profile_id="0" * 12)),
    ):
        assert isinstance(await _fails(cluster.call(call, request)), errors.NotFoundError)


@pytest.mark.parametrize(
    "request_", [pb.GetProfileRequest(), pb.GetProfileRequest(profile_id="a", model_fingerprint="b")]
)
async def test_a_profile_is_named_in_exactly_one_way(cluster, request_):
    error = await _fails(cluster.call(cluster.stubs.profiles.GetProfile, request_))
    assert isinstance(error, errors.InvalidRequestError)


async def test_a_profile_is_deleted_unless_it_is_active(cluster):
    profiles = cluster.stubs.profiles
    old = (await _upload(cluster, _parts(_content(gamma=0.5)))).profile_id
    new = (await _upload(cluster, _parts(_content(gamma=0.25)))).profile_id
    await cluster.call(profiles.ActivateProfile, pb.ActivateProfileRequest(profile_id=new))
    error = await _fails(cluster.call(profiles.DeleteProfile, pb.DeleteProfileRequest(profile_id=new)))
    assert isinstance(error, errors.PreconditionError)
    await cluster.call(profiles.DeleteProfile, pb.DeleteProfileRequest(profile_id=old))
    listed = await cluster.call(profiles.ListProfiles, pb.ListProfilesRequest())
    assert [profile.profile_id for profile in listed.profiles] == [new]
    error = await _fails(cluster.call(profiles.DeleteProfile, pb.DeleteProfileRequest(profile_id=old)))
    assert isinstance(error, errors.NotFoundError)


async def test_a_stack_starts_by_the_measured_profile_and_keeps_what_was_activated(cluster, tmp_path, request):
    folder, token = request.config.rootpath / "tests" / "data" / "pointer-chaser", tmp_path / "token"
    token.write_text(cluster.admin[0][1].removeprefix("Bearer "))
    token.chmod(0o600)
    measured, wave = (
        LayerProfile.from_json(shipped_profile(fingerprint(folder), kind)) for kind in ("sensitivity", "wave")
    )
    assert await asyncio.to_thread(ensure_active, cluster.endpoint, token, folder) == measured.profile_id
    uploaded = await _upload(cluster, _parts(wave.to_json().encode(), size=1 << 20))
    activate = pb.ActivateProfileRequest(profile_id=uploaded.profile_id)
    await cluster.call(cluster.stubs.profiles.ActivateProfile, activate)
    assert await asyncio.to_thread(ensure_active, cluster.endpoint, token, folder) == wave.profile_id
