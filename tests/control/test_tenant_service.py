"""TenantService over a real connection: every promise of its proto."""

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from reasonserve import errors, status
from reasonserve.api.v1 import cluster_service_pb2 as cluster_pb
from reasonserve.api.v1 import tenant_service_pb2 as pb


async def _fails(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return status.from_rpc_error(caught.value)


def _update(tenant_id, mask, **fields):
    return pb.UpdateTenantRequest(tenant=pb.Tenant(tenant_id=tenant_id, **fields), update_mask=FieldMask(paths=mask))


async def test_a_tenant_is_stored_as_given_with_defaults(cluster):
    created = await cluster.add_tenant("acme", weight=0, display_name="Acme", guaranteed_slots=7)
    assert (created.weight, created.display_name, created.guaranteed_slots, created.limit_slots) == (1, "Acme", 7, 100)
    assert created.etag
    got = await cluster.call(cluster.stubs.tenants.GetTenant, pb.GetTenantRequest(tenant_id="acme"))
    assert got.tenant == created


async def test_tenants_are_listed_by_id(cluster):
    for tenant_id in ("b", "c", "a"):
        await cluster.add_tenant(tenant_id)
    listed = await cluster.call(cluster.stubs.tenants.ListTenants, pb.ListTenantsRequest())
    assert [tenant.tenant_id for tenant in listed.tenants] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tenant_id": "Acme"}, "tenant.tenant_id"),
        ({"tenant_id": ""}, "tenant.tenant_id"),
        ({"tenant_id": "a" * 64}, "tenant.tenant_id"),
        ({"tenant_id": "acme\n"}, "tenant.tenant_id"),
        ({"weight": -1}, "tenant.weight"),
        ({"guaranteed_slots": -1}, "tenant.guaranteed_slots"),
        ({"guaranteed_slots": 101}, "tenant.limit_slots"),
        ({"display_name": "x" * 257}, "tenant.display_name"),
        ({"request_budget": pb.RequestBudget()}, "tenant.request_budget.min_tokens"),
        (
            {"request_budget": pb.RequestBudget(min_tokens=31, default_tokens=64, max_tokens=64)},
            "tenant.request_budget.min_tokens",
        ),
        (
            {"request_budget": pb.RequestBudget(min_tokens=64, default_tokens=63, max_tokens=64)},
            "tenant.request_budget.default_tokens",
        ),
        (
            {"request_budget": pb.RequestBudget(min_tokens=32, default_tokens=64, max_tokens=63)},
            "tenant.request_budget.max_tokens",
        ),
    ],
)
async def test_a_contradictory_tenant_is_refused_by_field(cluster, fields, field):
    budget = pb.RequestBudget(min_tokens=32, default_tokens=64, max_tokens=128)
    tenant = pb.Tenant(**{"tenant_id": "acme", "limit_slots": 100, "request_budget": budget, **fields})
    error = await _fails(cluster.call(cluster.stubs.tenants.CreateTenant, pb.CreateTenantRequest(tenant=tenant)))
    assert isinstance(error, errors.InvalidRequestError)
    assert error.field == field
    assert field in error.message
    listed = await cluster.call(cluster.stubs.tenants.ListTenants, pb.ListTenantsRequest())
    assert not listed.tenants


async def test_a_taken_id_is_refused(cluster):
    created = await cluster.add_tenant("acme")
    error = await _fails(cluster.add_tenant("acme", limit_slots=5))
    assert isinstance(error, errors.AlreadyExistsError)
    got = await cluster.call(cluster.stubs.tenants.GetTenant, pb.GetTenantRequest(tenant_id="acme"))
    assert got.tenant == created


async def test_guarantees_beyond_the_live_capacity_are_refused(cluster):
    await cluster.add_tenant("before", guaranteed_slots=60)
    stream, _ = await cluster.lease("r0", capacity_slots=100)
    error = await _fails(cluster.add_tenant("acme", guaranteed_slots=41))
    assert isinstance(error, errors.PreconditionError)
    await cluster.add_tenant("acme", guaranteed_slots=40)
    raised = _update("acme", ["guaranteed_slots"], guaranteed_slots=41)
    assert isinstance(await _fails(cluster.call(cluster.stubs.tenants.UpdateTenant, raised)), errors.PreconditionError)
    stream.cancel()


async def test_an_update_changes_the_masked_fields_and_the_etag(cluster):
    created = await cluster.add_tenant("acme", display_name="Acme")
    request = _update("acme", ["limit_slots"], limit_slots=50, display_name="ignored", etag=created.etag)
    updated = (await cluster.call(cluster.stubs.tenants.UpdateTenant, request)).tenant
    assert (updated.limit_slots, updated.display_name) == (50, "Acme")
    assert updated.etag != created.etag


async def test_a_stale_etag_aborts_and_changes_nothing(cluster):
    created = await cluster.add_tenant("acme")
    first = _update("acme", ["limit_slots"], limit_slots=50, etag=created.etag)
    stored = (await cluster.call(cluster.stubs.tenants.UpdateTenant, first)).tenant
    second = _update("acme", ["limit_slots"], limit_slots=60, etag=created.etag)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cluster.call(cluster.stubs.tenants.UpdateTenant, second)
    assert caught.value.code() is grpc.StatusCode.ABORTED
    got = await cluster.call(cluster.stubs.tenants.GetTenant, pb.GetTenantRequest(tenant_id="acme"))
    assert got.tenant == stored


@pytest.mark.parametrize("mask", [[], ["tenant_id"], ["limit_slots", "etag"], ["request_budget.min_tokens"]])
async def test_a_wrong_mask_is_refused(cluster, mask):
    await cluster.add_tenant("acme")
    error = await _fails(cluster.call(cluster.stubs.tenants.UpdateTenant, _update("acme", mask, limit_slots=5)))
    assert (type(error), error.field) == (errors.InvalidRequestError, "update_mask")


async def test_a_recreated_tenant_has_another_etag(cluster):
    created = await cluster.add_tenant("acme")
    await cluster.call(cluster.stubs.tenants.DeleteTenant, pb.DeleteTenantRequest(tenant_id="acme"))
    assert (await cluster.add_tenant("acme")).etag != created.etag


async def test_what_does_not_exist_is_not_found(cluster):
    await cluster.add_tenant("acme")
    tenants = cluster.stubs.tenants
    for call, request in (
        (tenants.GetTenant, pb.GetTenantRequest(tenant_id="nobody")),
        (tenants.UpdateTenant, _update("nobody", ["weight"], weight=2)),
        (tenants.DeleteTenant, pb.DeleteTenantRequest(tenant_id="nobody")),
        (tenants.CreateTenantKey, pb.CreateTenantKeyRequest(tenant_id="nobody")),
        (tenants.RevokeTenantKey, pb.RevokeTenantKeyRequest(tenant_id="acme", key_id="0123456789ab")),
        (tenants.ResolveTenantKey, pb.ResolveTenantKeyRequest(key="nonsense")),
    ):
        assert isinstance(await _fails(cluster.call(call, request)), errors.NotFoundError)


async def _new_key(cluster, tenant_id):
    return await cluster.call(cluster.stubs.tenants.CreateTenantKey, pb.CreateTenantKeyRequest(tenant_id=tenant_id))


async def _resolve(cluster, key):
    return await cluster.call(cluster.stubs.tenants.ResolveTenantKey, pb.ResolveTenantKeyRequest(key=key))


async def test_a_key_resolves_to_its_tenant_until_it_is_revoked(cluster):
    await cluster.add_tenant("acme")
    made = await _new_key(cluster, "acme")
    for _ in range(2):  # the second time from the cache
        resolved = await _resolve(cluster, made.key)
        assert (resolved.tenant.tenant_id, resolved.key_id) == ("acme", made.key_id)
        assert [key.key_id for key in resolved.tenant.keys] == [made.key_id]
    revoke = pb.RevokeTenantKeyRequest(tenant_id="acme", key_id=made.key_id)
    await cluster.call(cluster.stubs.tenants.RevokeTenantKey, revoke)
    assert isinstance(await _fails(_resolve(cluster, made.key)), errors.NotFoundError)


async def test_only_the_owner_revokes_a_key(cluster):
    await cluster.add_tenant("acme")
    await cluster.add_tenant("other")
    made = await _new_key(cluster, "acme")
    revoke = pb.RevokeTenantKeyRequest(tenant_id="other", key_id=made.key_id)
    assert isinstance(await _fails(cluster.call(cluster.stubs.tenants.RevokeTenantKey, revoke)), errors.NotFoundError)
    assert (await _resolve(cluster, made.key)).tenant.tenant_id == "acme"


async def test_another_secret_for_a_known_key_id_is_unknown(cluster):
    await cluster.add_tenant("acme")
    made = await _new_key(cluster, "acme")
    forged = made.key[:-1] + ("A" if made.key[-1] != "A" else "B")
    assert isinstance(await _fails(_resolve(cluster, forged)), errors.NotFoundError)


async def test_deleting_a_tenant_revokes_its_keys(cluster):
    await cluster.add_tenant("acme")
    made = await _new_key(cluster, "acme")
    await _resolve(cluster, made.key)
    await cluster.call(cluster.stubs.tenants.DeleteTenant, pb.DeleteTenantRequest(tenant_id="acme"))
    await cluster.add_tenant("acme")
    assert isinstance(await _fails(_resolve(cluster, made.key)), errors.NotFoundError)


async def test_no_secret_is_on_disk(cluster, database_path):
    await cluster.add_tenant("acme")
    made = await _new_key(cluster, "acme")
    await _resolve(cluster, made.key)
    files = list(database_path.parent.glob("controller.db*"))
    assert any(made.key_id.encode() in file.read_bytes() for file in files)
    secret = made.key.rsplit(f"rsk_{made.key_id}_", 1)[1].encode()
    assert not any(secret in file.read_bytes() for file in files)


async def test_the_status_shows_tenants_and_replicas(cluster):
    await cluster.add_tenant("acme", guaranteed_slots=10)
    stream, _ = await cluster.lease("r0", 80, acme=(30, 5))
    shown = await cluster.call(cluster.stubs.cluster.GetClusterStatus, cluster_pb.GetClusterStatusRequest())
    assert shown.capacity_slots == 80
    assert [(r.replica_id, r.reserved_slots) for r in shown.replicas] == [("r0", 30)]
    (tenant,) = shown.tenants
    assert (tenant.reserved_slots, tenant.leased_slots, tenant.guaranteed_slots) == (30, 80, 10)
    assert shown.revision == cluster.controller.ledger.state.revision
    stream.cancel()
