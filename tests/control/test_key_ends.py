"""Keys that expire: their bounds, their end over a real connection, and how long they are kept."""

from fractions import Fraction

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from reasonserve import errors, status
from reasonserve.api.v1 import tenant_service_pb2 as pb
from reasonserve.controller import keyring
from reasonserve.controller.ledger import Ledger
from reasonserve.controller.records import Key, RequestBudget, Snapshot, Tenant
from reasonserve.controller.translate import to_expire_ns
from reasonserve.controller_client import admin_metadata
from reasonserve.gateway.auth import Authenticator, to_owner

DAY_NS = 86_400 * 10**9
NEAR = st.integers(-2, 2)
SECONDS = NEAR | NEAR.map(lambda near: near + 3650 * 86_400) | st.integers(-(2**63), 2**63 - 1)
NANOS = NEAR | NEAR.map(lambda near: near + 10**9) | st.integers(-(2**31), 2**31 - 1)


@given(SECONDS, NANOS, st.integers(0, 2**61))
def test_a_time_to_live_is_taken_exactly_or_refused(seconds, nanos, now_ns):
    request = pb.CreateTenantKeyRequest(ttl=Duration(seconds=seconds, nanos=nanos))
    ttl_s = seconds + Fraction(nanos, 10**9)
    if 0 <= nanos <= 999_999_999 and 0 < ttl_s <= 315_360_000:
        assert Fraction(to_expire_ns(request, now_ns=now_ns) - now_ns, 10**9) == ttl_s
    else:
        with pytest.raises(errors.InvalidRequestError, match="at most 315360000 s") as caught:
            to_expire_ns(request, now_ns=now_ns)
        assert caught.value.field == "ttl"
    assert to_expire_ns(pb.CreateTenantKeyRequest(), now_ns=now_ns) is None


def _ledger(ends):
    budget = RequestBudget(min_tokens=32, default_tokens=64, max_tokens=64)
    tenants = [
        Tenant(tenant_id=t, display_name="", weight=1, guaranteed_slots=0, limit_slots=9, request_budget=budget)
        for t in ("a", "b")
    ]
    ledger = Ledger(lease_ttl_s=1.0, now=0.0)
    for tenant in tenants:
        ledger.apply(ledger.create_tenant(tenant))
    keys = [Key(key_id=f"{t}{i}", tenant_id=t, secret_hash="h", expire_ns=end) for t in "ab" for i, end in ends]
    stored = ledger.state.snapshot()
    return Ledger(Snapshot(revision=2, tenants=stored.tenants, keys=tuple(keys)), lease_ttl_s=1.0, now=0.0)


@given(st.lists(st.none() | st.integers(0, 40)), st.integers(0, 80))
def test_a_key_ends_at_its_end_and_is_dropped_with_the_next_one_thirty_days_later(days, today):
    ledger = _ledger([(i, None if day is None else day * DAY_NS) for i, day in enumerate(days)])
    for i, day in enumerate(days):
        assert (ledger.state.valid_key(f"a{i}", today * DAY_NS) is None) is (day is not None and day <= today)
        assert ledger.state.key(f"a{i}") is not None
    ledger.apply(ledger.add_key(Key(key_id="new", tenant_id="a", secret_hash="h"), now_ns=today * DAY_NS))
    ledger.check_integrity()
    kept = {f"a{i}" for i, day in enumerate(days) if day is None or day > today - 30}
    assert {key.key_id for key in ledger.state.keys_of("a")} == {*kept, "new"}
    assert len(ledger.state.keys_of("b")) == len(days)


async def _new_key(cluster, **ttl):
    request = pb.CreateTenantKeyRequest(tenant_id="acme", ttl=Duration(**ttl) if ttl else None)
    return await cluster.call(cluster.stubs.tenants.CreateTenantKey, request)


async def _resolve(cluster, key):
    return await cluster.call(cluster.stubs.tenants.ResolveTenantKey, pb.ResolveTenantKeyRequest(key=key))


async def _refusals(cluster, key):
    """How the key is refused: to a gateway that asks whose it is, and as the caller's own token."""
    told = []
    own = cluster.stubs.tenants.GetTenant(pb.GetTenantRequest(tenant_id="acme"), metadata=admin_metadata(key))
    for call in (_resolve(cluster, key), own):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        error = status.from_rpc_error(caught.value)
        told.append((caught.value.code(), type(error), error.message, error.field))
    return told


async def test_a_key_works_until_its_end_and_is_then_refused_like_one_that_never_was(cluster):
    await cluster.add_tenant("acme")
    made, endless = await _new_key(cluster, seconds=60), await _new_key(cluster)
    assert made.expire_time.ToNanoseconds() == cluster.wall.now + 60 * 10**9
    assert not endless.HasField("expire_time")
    cluster.wall.now += 60 * 10**9 - 1
    resolved = await _resolve(cluster, made.key)  # and is remembered as verified from now on
    assert (resolved.tenant.tenant_id, resolved.ttl.ToNanoseconds()) == ("acme", 1)
    listed = {key.key_id: key for key in resolved.tenant.keys}
    assert listed[made.key_id].expire_time == made.expire_time
    assert not listed[endless.key_id].HasField("expire_time")
    cluster.wall.now += 1
    never = "rsk_0123456789ab_" + "a" * 43
    refused = await _refusals(cluster, made.key)
    assert refused == await _refusals(cluster, never)
    assert [code for code, *_ in refused] == [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAUTHENTICATED]
    assert not (await _resolve(cluster, endless.key)).HasField("ttl")


async def test_a_key_that_expires_while_it_is_verified_is_refused(cluster, monkeypatch):
    await cluster.add_tenant("acme")
    made = await _new_key(cluster, seconds=60)
    verify = keyring.verify_secret

    def slow(*given):
        cluster.wall.now += 60 * 10**9
        return verify(*given)

    monkeypatch.setattr(keyring, "verify_secret", slow)
    codes = [code for code, *_ in await _refusals(cluster, made.key)]
    assert codes == [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAUTHENTICATED]


async def test_a_gateway_refuses_a_key_at_its_end_and_not_a_cache_time_later(cluster):
    async def resolve(key):
        asked.append(key)
        try:
            return to_owner(await _resolve(cluster, key))
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from None

    asked = []
    await cluster.add_tenant("acme")
    made, endless = await _new_key(cluster, seconds=60), await _new_key(cluster)
    cluster.wall.now += 58 * 10**9
    gateway = Authenticator(resolve, key_cache_s=5.0, clock=cluster.clock)
    for passed in (0, 1.9, 2):
        cluster.clock.now = 1000 + passed
        assert await gateway.tenant_of(endless.key) == "acme"
        if passed < 2:
            assert await gateway.tenant_of(made.key) == "acme"
    assert asked == [endless.key, made.key]
    cluster.wall.now += 2 * 10**9
    with pytest.raises(errors.UnauthenticatedError):
        await gateway.tenant_of(made.key)


@pytest.mark.parametrize(
    "ttl", [{"seconds": 0}, {"seconds": -1}, {"nanos": -1}, {"seconds": 315_360_000, "nanos": 1}, {"nanos": 10**9}]
)
async def test_a_time_to_live_out_of_range_makes_no_key(cluster, ttl):
    await cluster.add_tenant("acme")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _new_key(cluster, **ttl)
    error = status.from_rpc_error(caught.value)
    assert (caught.value.code(), error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "ttl")
    assert not cluster.controller.ledger.state.keys_of("acme")


async def test_an_expired_key_can_be_revoked_and_is_listed_until_then(cluster):
    await cluster.add_tenant("acme")
    made = await _new_key(cluster, nanos=1)
    cluster.wall.now += 1
    get = pb.GetTenantRequest(tenant_id="acme")
    (key,) = (await cluster.call(cluster.stubs.tenants.GetTenant, get)).tenant.keys
    assert key == pb.TenantKey(key_id=made.key_id, expire_time=Timestamp(seconds=1_900_000_000, nanos=1))
    revoke = pb.RevokeTenantKeyRequest(tenant_id="acme", key_id=made.key_id)
    await cluster.call(cluster.stubs.tenants.RevokeTenantKey, revoke)
    assert not (await cluster.call(cluster.stubs.tenants.GetTenant, get)).tenant.keys
