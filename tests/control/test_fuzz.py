"""Whatever is sent to the running server: a canonical status and reason, no change, no traceback, no key in a log."""

from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reasonserve.api.v1 import cluster_service_pb2, lease_service_pb2, profile_service_pb2
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.bench.control.process import AdminClient, ControllerProcess
from reasonserve.controller_client import admin_metadata
from reasonserve.status import DETAILS_KEY, RULES, from_rpc_error

METHODS = {
    f"/{service.full_name}/{method.name}": method
    for module in (cluster_service_pb2, lease_service_pb2, profile_service_pb2, tenant_pb)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
FAILURES = {rule.code for rule in RULES.values() if rule} - {grpc.StatusCode.UNAVAILABLE}
TREE = str(Path(__file__).parents[2])
TEXTS = (
    st.sampled_from(
        ["", "acme", "r0", "weight", "queue", "r1", "x" * 5000, "\x00", "../../etc/passwd", "'; DROP TABLE meta; --"]
    )
    | st.text(max_size=20)
    | st.text(alphabet="abc-", max_size=3)
)
SIZES = {FieldDescriptor.CPPTYPE_INT32: 31, FieldDescriptor.CPPTYPE_INT64: 63}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A controller process with a tenant, keys of every bad kind and a watcher of its log."""
    # No lease lapses meanwhile, which would be a change of its own.
    controller = ControllerProcess(tmp_path_factory.mktemp("fuzz"), lease_ttl_s=300)
    controller.start()
    admin = AdminClient(controller)
    tenants = admin.services.tenants
    budget = tenant_pb.RequestBudget(min_tokens=32, default_tokens=64, max_tokens=128)
    acme = tenant_pb.Tenant(tenant_id="acme", limit_slots=100, request_budget=budget)
    admin.call(tenants.CreateTenant, tenant_pb.CreateTenantRequest(tenant=acme))
    keys = [admin.call(tenants.CreateTenantKey, tenant_pb.CreateTenantKeyRequest(tenant_id="acme")) for _ in range(2)]
    revoke = tenant_pb.RevokeTenantKeyRequest(tenant_id="acme", key_id=keys[1].key_id)
    admin.call(tenants.RevokeTenantKey, revoke)
    short = tenant_pb.CreateTenantKeyRequest(tenant_id="acme", ttl=Duration(nanos=1))
    keys.append(admin.call(tenants.CreateTenantKey, short))
    acme.tenant_id = "gone"
    admin.call(tenants.CreateTenant, tenant_pb.CreateTenantRequest(tenant=acme))
    keys.append(admin.call(tenants.CreateTenantKey, tenant_pb.CreateTenantKeyRequest(tenant_id="gone")))
    admin.call(tenants.DeleteTenant, tenant_pb.DeleteTenantRequest(tenant_id="gone"))
    controller.keys = [key.key for key in keys]
    with grpc.insecure_channel(controller.endpoint) as controller.channel:
        yield controller, admin
    admin.close()
    controller.end()


def _values(field, depth):
    """Strategy of one field's values, mostly wrong ones."""
    if field.message_type is not None:
        return messages(field.message_type, depth + 1)
    if field.cpp_type in SIZES:
        most = 2 ** SIZES[field.cpp_type] - 1
        return st.sampled_from([-1, 0, 1, 32, 64, 100, most, -most - 1]) | st.integers(-most - 1, most)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    return st.binary(max_size=30) if field.type == FieldDescriptor.TYPE_BYTES else TEXTS


@st.composite
def messages(draw, descriptor, depth=0):
    """A message with some of its fields set."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if depth > 3 or not draw(st.booleans()):
            continue
        if field.is_repeated:
            values = draw(st.lists(_values(field, depth), max_size=3))
            getattr(message, field.name).extend(values)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(draw(_values(field, depth)))
        else:
            setattr(message, field.name, draw(_values(field, depth)))
    return message


def _state(admin):
    """Everything that a call could have changed."""
    services = admin.services
    status = admin.call(services.cluster.GetClusterStatus, cluster_service_pb2.GetClusterStatusRequest())
    tenants = admin.call(services.tenants.ListTenants, tenant_pb.ListTenantsRequest())
    profiles = admin.call(services.profiles.ListProfiles, profile_service_pb2.ListProfilesRequest())
    return status.revision, tenants.SerializeToString(), profiles.SerializeToString()


def _send(channel, path, metadata, parts):
    """Calls a method with raw bytes; returns how it failed, or None."""
    method = METHODS[path]
    call = getattr(channel, f"{_kind(method.client_streaming)}_{_kind(method.server_streaming)}")(path)
    request = iter(parts) if method.client_streaming else parts[0]
    try:
        answer = call(request, metadata=metadata, timeout=20)
        if method.server_streaming:
            # A watch has no end; a lease stream ends with its requests.
            for _ in answer:
                if not method.client_streaming:
                    answer.cancel()
    except grpc.RpcError as error:
        return None if error.code() is grpc.StatusCode.CANCELLED else error
    return None


def _kind(streaming):
    return "stream" if streaming else "unary"


def _check_refusal(error):
    assert error.code() in FAILURES, (error.code(), error.details())
    details = dict(error.trailing_metadata())[DETAILS_KEY]
    assert RULES[type(from_rpc_error(error))].reason.encode() in details
    told = from_rpc_error(error)
    assert RULES[type(told)].code is error.code()
    assert told.message
    assert not any(word in told.message for word in ("Traceback", TREE, "site-packages", ".py", "sqlite"))
    assert len(told.message) < 2000


fuzzed = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.rsplit("/")[-1])
@fuzzed
@given(data=st.data())
def test_any_fields_are_taken_or_refused_without_a_trace(server, path, data):
    controller, admin = server
    method = METHODS[path]
    requests = data.draw(st.lists(messages(method.input_type), min_size=1, max_size=3))
    before = _state(admin)
    parts = [request.SerializeToString() for request in requests]
    error = _send(controller.channel, path, admin.metadata, parts)
    if error is not None:
        _check_refusal(error)
        # A stream's first reports may have been taken; what they changed is the replica that they joined.
        if path != "/reasonserve.api.v1.LeaseService/Lease":
            assert _state(admin) == before
        assert _state(admin)[1:] == before[1:]


@fuzzed
@given(queue=messages(tenant_pb.QueueLimits.DESCRIPTOR))
def test_any_queue_limits_are_stored_as_given_or_refused(server, queue):
    controller, admin = server
    given_tenant = tenant_pb.Tenant(tenant_id="acme", queue=queue)
    request = tenant_pb.UpdateTenantRequest(tenant=given_tenant, update_mask=FieldMask(paths=["queue"]))
    before = _state(admin)
    path = "/reasonserve.api.v1.TenantService/UpdateTenant"
    error = _send(controller.channel, path, admin.metadata, [request.SerializeToString()])
    if error is not None:
        _check_refusal(error)
        assert _state(admin) == before
        return
    got = admin.call(admin.services.tenants.GetTenant, tenant_pb.GetTenantRequest(tenant_id="acme")).tenant.queue
    assert (got.max_requests, got.max_wait) == (queue.max_requests, queue.max_wait)


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.rsplit("/")[-1])
@fuzzed
@given(data=st.binary(max_size=60).filter(lambda data: data != b""))
def test_bytes_that_are_no_message_are_refused(server, path, data):
    controller, admin = server
    try:
        GetMessageClass(METHODS[path].input_type).FromString(data)
    except Exception:
        before = _state(admin)
        error = _send(controller.channel, path, admin.metadata, [data])
        assert error is not None
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        _check_refusal(error)
        assert _state(admin) == before


TOKENS = st.sampled_from(["revoked", "expired", "of a deleted tenant", "broken", "no scheme"]) | st.text(
    st.characters(min_codepoint=33, max_codepoint=126), max_size=60
)


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.rsplit("/")[-1])
@settings(fuzzed, max_examples=8)
@given(token=TOKENS, data=st.data())
def test_a_stranger_changes_nothing(server, path, token, data):
    controller, admin = server
    before = _state(admin)
    key, *bad = controller.keys
    kinds = ("revoked", "expired", "of a deleted tenant", "broken")
    presented = dict(zip(kinds, [*bad, key[:-1] + "!"], strict=True)).get(token, token)
    metadata = (("authorization", key),) if token == "no scheme" else admin_metadata(presented)
    request = data.draw(messages(METHODS[path].input_type))
    error = _send(controller.channel, path, metadata, [request.SerializeToString()])
    assert error is not None
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    _check_refusal(error)
    assert _state(admin) == before


def test_a_replayed_or_disordered_stream_is_refused(server):
    controller, admin = server
    path = "/reasonserve.api.v1.LeaseService/Lease"
    first = lease_service_pb2.LeaseRequest(replica_id="replayed", capacity_slots=10, applied_seq=0)
    ahead = lease_service_pb2.LeaseRequest(replica_id="replayed", capacity_slots=10, applied_seq=99)
    other = lease_service_pb2.LeaseRequest(replica_id="another", capacity_slots=10)
    for parts in ([first, ahead], [first, other]):
        error = _send(controller.channel, path, admin.metadata, [part.SerializeToString() for part in parts])
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        _check_refusal(error)
    # The same report again is a renewal.
    assert _send(controller.channel, path, admin.metadata, [first.SerializeToString()] * 3) is None


def test_no_log_holds_a_key_or_a_traceback(server):
    """Last in this file: everything above was logged by then."""
    controller, _ = server
    log = controller.log
    assert "Listening" in log
    # A secret may hold an underscore itself.
    secrets = [controller.token, *controller.keys, *(key.split("_", 2)[2] for key in controller.keys)]
    assert not [secret for secret in secrets if secret in log]
    assert "Traceback" not in log
    assert "Error" not in log
