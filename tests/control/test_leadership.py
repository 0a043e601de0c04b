"""Several controllers on one real PostgreSQL: exactly one leads, and another takes over when it is gone."""

import asyncio
import signal
import time
from types import SimpleNamespace

import grpc
import pytest
import sqlalchemy as sa
from grpc_health.v1 import health_pb2, health_pb2_grpc

from reasonserve import errors, status
from reasonserve.api.v1 import tenant_service_pb2 as pb
from reasonserve.controller.core import Controller
from reasonserve.controller.leadership import Leadership
from reasonserve.controller.process import LeadershipLostError, _Process
from reasonserve.controller.store import Store

TTL_S = 10
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
TENANT = pb.Tenant(
    tenant_id="acme",
    limit_slots=100,
    request_budget=pb.RequestBudget(min_tokens=32, default_tokens=64, max_tokens=128),
)


@pytest.fixture
def url(postgres):
    return postgres.new_database()


@pytest.fixture
def claim(url):
    claims = []

    def claim_one():
        claims.append(Leadership(url))
        return claims[-1]

    yield claim_one
    for made in claims:
        made.close()


def test_one_of_two_claims_is_granted_until_it_is_given_up(claim):
    first, second = claim(), claim()
    assert first.contested
    assert (first.acquire(), second.acquire()) == (True, False)
    assert (first.held(), second.held()) == (True, False)
    first.close()
    assert second.acquire()
    assert not claim().acquire()


def test_a_claim_ends_with_its_session(claim):
    first, second = claim(), claim()
    assert first.acquire()
    with second._engine.connect() as connection:
        mine = sa.text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        connection.execute(mine)
    assert not first.held()


def test_other_databases_have_their_own_leaders(claim, postgres):
    other = Leadership(postgres.new_database())
    assert claim().acquire()
    assert other.acquire()
    other.close()


def test_on_sqlite_the_first_controller_leads(database_url):
    first, second = Leadership(database_url), Leadership(database_url)
    assert (first.contested, first.acquire(), first.held(), second.acquire()) == (False, True, True, False)
    first.close()
    assert second.acquire()
    second.close()


def test_in_memory_everyone_leads():
    assert all(Leadership(url).acquire() for url in ("sqlite://", "sqlite:///:memory:"))


def test_an_unreachable_postgres_is_refused():
    nowhere = Leadership("postgresql://owner@127.0.0.1:1/d")
    with pytest.raises(errors.StartupError, match="--database-url"):
        nowhere.acquire()
    nowhere.close()


async def test_leases_of_an_earlier_leader_are_waited_for_with_a_margin(url):
    store = Store(url)
    earlier = Controller(lease_ttl_s=TTL_S, clock=lambda: 0.0)
    with pytest.raises(errors.UnavailableError, match="stands by"):
        _ = earlier.ledger
    await earlier.lead(store)
    await earlier.commit(lambda: earlier.ledger.join_replicas("r0"))
    later = Controller(lease_ttl_s=TTL_S, clock=lambda: 0.0)
    await later.lead(store, margin_s=4.0)
    assert later.ledger.leases.next_deadline_s == TTL_S + 4.0
    store.close()


def _health(process):
    with grpc.insecure_channel(f"127.0.0.1:{process.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        services = ("", "reasonserve.api.v1.LeaseService")
        return {stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=30).status for name in services}


def _wait_until_serving(process):
    """Returns the seconds it took; fails after one lease period."""
    began = time.monotonic()
    while time.monotonic() - began < TTL_S:
        if _health(process) == {SERVING}:
            return time.monotonic() - began
        time.sleep(0.05)
    raise AssertionError("nobody leads after one lease period")


def _refusal(process, method, request):
    with pytest.raises(grpc.RpcError) as caught:
        process.call(method, request)
    return status.from_rpc_error(caught.value)


def _pair(start, url):
    options = ("--lease-ttl-s", str(TTL_S))
    return start(*options, database_url=url), start(*options, database_url=url)


@pytest.mark.parametrize(
    ("database", "number"),
    [("postgresql", signal.SIGKILL), ("postgresql", signal.SIGTERM), ("sqlite", signal.SIGKILL)],
)
def test_the_second_stands_by_and_takes_over(request, start, database, number, record_property):
    leader, standby = _pair(start, request.getfixturevalue("database_url" if database == "sqlite" else "url"))
    assert (_health(leader), _health(standby)) == ({SERVING}, {NOT_SERVING})
    assert "standing by" in standby.lines[-1]
    create = pb.CreateTenantRequest(tenant=TENANT)
    for method, request in (("CreateTenant", create), ("ListTenants", pb.ListTenantsRequest())):
        refused = _refusal(standby, method, request)
        assert isinstance(refused, errors.UnavailableError)
        assert "another leads" in refused.message
    created = leader.call("CreateTenant", create).tenant
    leader.end(number)
    record_property("takeover_s", _wait_until_serving(standby))
    assert standby.call("GetTenant", pb.GetTenantRequest(tenant_id="acme")).tenant == created
    standby.call("DeleteTenant", pb.DeleteTenantRequest(tenant_id="acme"))


def test_a_leader_that_lost_its_session_ends_and_one_leads(start, url, postgres):
    leader, standby = _pair(start, url)
    postgres.restart()
    code, log = leader.end()
    assert code == 3
    assert "Another controller may lead now" in log
    _wait_until_serving(standby)


async def test_a_stall_of_the_process_does_not_cost_the_leadership():
    leadership = SimpleNamespace(contested=True, held=lambda: time.sleep(0.05) or True)
    process = SimpleNamespace(_options=SimpleNamespace(check_s=0.1), _leadership=leadership)
    leading = asyncio.create_task(_Process._keep_leading(process))
    # The answer comes in this stall, before the time for it is over, and the loop sees both together.
    asyncio.get_running_loop().call_later(0.12, time.sleep, 0.3)
    await asyncio.sleep(0.5)
    assert not leading.done()
    leading.cancel()
    await asyncio.wait([leading])


async def test_where_nobody_can_take_it_a_late_answer_does_not_cost_the_leadership():
    """A starved machine let a thread wait for two seconds, and the only controller there was ended itself."""
    for contested, ends in ((False, False), (True, True)):
        leadership = SimpleNamespace(contested=contested, held=lambda: time.sleep(0.3) or True)
        process = SimpleNamespace(_options=SimpleNamespace(check_s=0.02), _leadership=leadership)
        leading = asyncio.create_task(_Process._keep_leading(process))
        await asyncio.wait([leading], timeout=0.5)
        assert leading.done() is ends
        leading.cancel()
        await asyncio.wait([leading])
        assert not ends or isinstance(leading.exception(), LeadershipLostError)
