"""The admin token: who gets in, and how the file is kept."""

import stat

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from reasonserve import controller_client, errors
from reasonserve.api.v1 import (
    cluster_service_pb2,
    lease_service_pb2,
    profile_service_pb2,
    tenant_service_pb2,
)
from reasonserve.controller.auth import ensure_admin_token

METHODS = [
    (method.containing_service.full_name, method.name)
    for module in (cluster_service_pb2, lease_service_pb2, profile_service_pb2, tenant_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
WRONG = [
    (),
    controller_client.admin_metadata(""),
    controller_client.admin_metadata("an-admin-token-of-this-tesT"),
    (("authorization", "an-admin-token-of-this-test"),),
    (("x-authorization", "Bearer an-admin-token-of-this-test"),),
    controller_client.admin_metadata("an-admin-token-of-this-test") * 2,
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method[1])
async def test_every_method_asks_for_the_token(cluster, method):
    """Streaming methods must be refused before they wait for a message."""
    call = cluster.channel.stream_stream("/{}/{}".format(*method))(timeout=20)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("metadata", WRONG, ids=["none", "empty", "near", "no scheme", "other header", "twice"])
async def test_a_wrong_token_is_refused(cluster, metadata):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cluster.stubs.tenants.ListTenants(tenant_service_pb2.ListTenantsRequest(), metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_health_and_reflection_are_open(cluster):
    with pytest.raises(grpc.aio.AioRpcError) as caught:  # known to be there, not yet said to serve
        await health_pb2_grpc.HealthStub(cluster.channel).Check(health_pb2.HealthCheckRequest(service="x"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    stream = reflection_pb2_grpc.ServerReflectionStub(cluster.channel).ServerReflectionInfo()
    await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = {service.name for service in (await stream.read()).list_services_response.service}
    assert {service for service, _ in METHODS} <= listed
    stream.cancel()


def test_the_first_start_draws_a_token_that_only_the_owner_reads(tmp_path):
    path = tmp_path / "state" / "admin.token"
    token = ensure_admin_token(path)
    assert len(token) == 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_admin_token(path) == token == controller_client.read_admin_token(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_token_that_others_may_read_or_write_is_refused(tmp_path, mode):
    path = tmp_path / "admin.token"
    ensure_admin_token(path)
    path.chmod(mode)
    with pytest.raises(errors.StartupError, match="chmod 600"):
        ensure_admin_token(path)


def test_an_empty_token_is_refused(tmp_path):
    path = tmp_path / "admin.token"
    path.touch(mode=0o600)
    with pytest.raises(errors.StartupError, match="empty"):
        ensure_admin_token(path)


def test_a_missing_token_is_said_so(tmp_path):
    with pytest.raises(errors.StartupError, match="start the controller once"):
        controller_client.read_admin_token(tmp_path / "nowhere")
