"""Tokens and scopes: who gets in, what each may call, and how the files are kept."""

import stat
from types import SimpleNamespace

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
from reasonserve.controller.auth import OPERATOR_METHODS, TENANT_METHODS, ScopeInterceptor, Tokens
from reasonserve.controller.core import Controller
from reasonserve.controller.server import build_server
from reasonserve.controller.store import Store
from reasonserve.controller.tokens import ensure_token

METHODS = {
    (method.containing_service.full_name, method.name): method
    for module in (cluster_service_pb2, lease_service_pb2, profile_service_pb2, tenant_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
OPERATOR_TOKEN = "an-operator-token-of-this-test"
TTL_S = 10.0
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
    """Streaming methods must be refused also where no message comes."""
    call = cluster.channel.stream_stream("/{}/{}".format(*method))(timeout=20)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("metadata", WRONG, ids=["none", "empty", "near", "no scheme", "other header", "twice"])
async def test_a_wrong_token_is_refused(cluster, metadata):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cluster.stubs.tenants.ListTenants(tenant_service_pb2.ListTenantsRequest(), metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_refusal_lets_the_first_message_in():
    """To a client in grpc.aio a message that meets a stream that has ended is an INTERNAL error, not a refusal."""
    done = []

    async def requests():
        done.append("message")
        yield b""

    class Context:
        async def abort(self, code, _message, trailing_metadata=()):
            done.append(code)

    details = SimpleNamespace(method="/reasonserve.api.v1.LeaseService/Lease", invocation_metadata=())
    handler = await ScopeInterceptor(Tokens(admin="t"), None).intercept_service(None, details)
    await handler.stream_stream(requests(), Context())
    assert done == ["message", grpc.StatusCode.UNAUTHENTICATED]


async def _code(cluster, method, token):
    """Calls a method with an empty message, or with none where it takes many, and returns the status."""
    streams = METHODS[method].client_streaming, METHODS[method].server_streaming
    kind = "_".join("stream" if one else "unary" for one in streams)
    call = getattr(cluster.channel, kind)("/{}/{}".format(*method))
    metadata = controller_client.admin_metadata(token)
    made = call(metadata=metadata, timeout=20) if streams[0] else call(b"", metadata=metadata, timeout=20)
    try:
        await (made.read() if streams[1] else made)
    except grpc.aio.AioRpcError as error:
        return error.code()
    made.cancel()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method[1])
async def test_the_operator_reads_and_the_tenant_reads_its_own(cluster, method):
    await cluster.add_tenant("acme")
    key = await cluster.call(
        cluster.stubs.tenants.CreateTenantKey, tenant_service_pb2.CreateTenantKeyRequest(tenant_id="acme")
    )
    before = cluster.controller.ledger.state.snapshot()
    reads = method[1].startswith(("Get", "List", "Watch"))
    assert ("/{}/{}".format(*method) in OPERATOR_METHODS) is reads
    denied = grpc.StatusCode.PERMISSION_DENIED
    assert (await _code(cluster, method, OPERATOR_TOKEN) is denied) is not reads
    # An empty message names no tenant, so that a tenant's key is denied by every method.
    assert await _code(cluster, method, key.key) is denied
    assert cluster.controller.ledger.state.snapshot() == before


async def test_a_key_reads_its_own_tenant_until_it_is_revoked(cluster):
    for name in ("acme", "other"):
        await cluster.add_tenant(name)
    tenants = cluster.stubs.tenants
    made = await cluster.call(tenants.CreateTenantKey, tenant_service_pb2.CreateTenantKeyRequest(tenant_id="acme"))
    metadata = controller_client.admin_metadata(made.key)
    calls = (
        (tenants.GetTenant, tenant_service_pb2.GetTenantRequest),
        (tenants.ListTenantUsage, tenant_service_pb2.ListTenantUsageRequest),
    )
    assert len(calls) == len(TENANT_METHODS)
    for call, request in calls:
        answer = await call(request(tenant_id="acme"), metadata=metadata)
        own = answer.tenant if hasattr(answer, "tenant") else answer.usage[0]
        assert own.tenant_id == "acme"
        for name in ("other", "nobody", ""):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(request(tenant_id=name), metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    revoke = tenant_service_pb2.RevokeTenantKeyRequest(tenant_id="acme", key_id=made.key_id)
    await cluster.call(tenants.RevokeTenantKey, revoke)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tenants.GetTenant(tenant_service_pb2.GetTenantRequest(tenant_id="acme"), metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_without_an_operator_token_an_empty_one_lets_nobody_in(database_url):
    store, controller = Store(database_url), Controller(lease_ttl_s=TTL_S)
    await controller.lead(store)
    server, _ = build_server(controller, Tokens(admin="t"))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with controller_client.open_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await controller_client.stubs(channel).tenants.ListTenants(
                tenant_service_pb2.ListTenantsRequest(), metadata=controller_client.admin_metadata("")
            )
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    await server.stop(None)
    store.close()


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
    token = ensure_token(path)
    assert len(token) == 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_token(path) == token == controller_client.read_admin_token(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_token_that_others_may_read_or_write_is_refused(tmp_path, mode):
    path = tmp_path / "admin.token"
    ensure_token(path)
    path.chmod(mode)
    with pytest.raises(errors.StartupError, match="chmod 600"):
        ensure_token(path)


def test_an_empty_token_is_refused(tmp_path):
    path = tmp_path / "admin.token"
    path.touch(mode=0o600)
    with pytest.raises(errors.StartupError, match="empty"):
        ensure_token(path)


def test_a_missing_token_is_said_so(tmp_path):
    with pytest.raises(errors.StartupError, match="start the controller once"):
        controller_client.read_admin_token(tmp_path / "nowhere")
