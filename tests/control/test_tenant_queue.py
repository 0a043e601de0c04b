"""A tenant's own queue limits, from the wire through the ledger to a replica's next lease."""

import asyncio
import json

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from reasonserve import errors, status
from reasonserve.api.v1 import tenant_service_pb2 as pb
from reasonserve.cli.main import app
from reasonserve.cli.tenant_queue import queue_line
from reasonserve.controller.tenants import check_tenant
from reasonserve.controller.translate import from_tenant, to_tenant
from reasonserve.errors import BudgetExhaustedError
from reasonserve.replica.admission import Admission, Entry
from reasonserve.replica.desk import Desk
from reasonserve.replica.fake_engine import FakeEngine
from reasonserve.replica.lease_client import LeaseClient, ReplicaIdentity
from reasonserve.replica.sizing import KvAsk
from reasonserve.replica.sizing import QueueLimits as ReplicaLimits

HOUR_NS = 3600 * 10**9


def _limits(requests=0, seconds=0, nanos=0):
    return pb.QueueLimits(max_requests=requests, max_wait=Duration(seconds=seconds, nanos=nanos))


async def _update(cluster, mask=("queue",), **fields):
    tenant = pb.Tenant(tenant_id="acme", **fields)
    request = pb.UpdateTenantRequest(tenant=tenant, update_mask=FieldMask(paths=mask))
    return (await cluster.call(cluster.stubs.tenants.UpdateTenant, request)).tenant


async def _stored(cluster):
    got = await cluster.call(cluster.stubs.tenants.GetTenant, pb.GetTenantRequest(tenant_id="acme"))
    return got.tenant


def _numbers(tenant):
    return tenant.queue.max_requests, tenant.queue.max_wait.ToNanoseconds()


async def test_limits_are_stored_as_given_and_unset_ones_are_zero(cluster):
    assert _numbers(await cluster.add_tenant("plain")) == (0, 0)
    made = await cluster.add_tenant("acme", queue=_limits(7, 2, 5_000_000))
    assert _numbers(made) == (7, 2_005_000_000)
    assert await _stored(cluster) == made


async def test_only_a_mask_that_names_them_changes_them_and_always_both(cluster):
    await cluster.add_tenant("acme", queue=_limits(7, 2))
    assert _numbers(await _update(cluster, mask=("weight",), weight=2, queue=_limits(9, 9))) == (7, 2 * 10**9)
    assert _numbers(await _update(cluster, queue=_limits(9))) == (9, 0)
    assert _numbers(await _update(cluster)) == (0, 0)


BAD = [
    (_limits(-1), "tenant.queue.max_requests"),
    (_limits(1025), "tenant.queue.max_requests"),
    (_limits(0, 0, 999_999), "tenant.queue.max_wait"),
    (_limits(0, 3600, 1), "tenant.queue.max_wait"),
    (_limits(0, -1), "tenant.queue.max_wait"),
    (_limits(0, 0, -1), "tenant.queue.max_wait"),
    (_limits(0, 2, -1), "tenant.queue.max_wait"),
    (_limits(0, 1, 10**9), "tenant.queue.max_wait"),
    (_limits(0, 2**63 - 1), "tenant.queue.max_wait"),
]


@pytest.mark.parametrize(("queue", "field"), BAD)
async def test_limits_out_of_range_are_refused_by_field_and_change_nothing(cluster, queue, field):
    with pytest.raises(grpc.aio.AioRpcError) as created:
        await cluster.add_tenant("acme", queue=queue)
    stored = await cluster.add_tenant("acme", queue=_limits(7, 2))
    with pytest.raises(grpc.aio.AioRpcError) as updated:
        await _update(cluster, queue=queue)
    for caught in (created, updated):
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert b"INVALID_REQUEST" in dict(caught.value.trailing_metadata())[status.DETAILS_KEY]
        error = status.from_rpc_error(caught.value)
        assert (type(error), error.field) == (errors.InvalidRequestError, field)
        assert error.message.startswith(f"{field}: given ")
    assert await _stored(cluster) == stored


EDGES = st.sampled_from([-1, 0, 1, 10**6 - 1, 10**6, 10**9 - 1, 10**9, -(2**31), 2**31 - 1])
SECONDS = st.sampled_from([-(2**63), -1, 0, 1, 3599, 3600, 2**63 - 1]) | st.integers(-5, 4000)
REQUESTS = st.sampled_from([-(2**31), 2**31 - 1, 1024, 1025]) | st.integers(-2, 1030)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(requests=REQUESTS, seconds=SECONDS, nanos=EDGES | st.integers(0, 10**9))
def test_whatever_is_on_the_wire_is_taken_exactly_or_refused(requests, seconds, nanos):
    budget = pb.RequestBudget(min_tokens=32, default_tokens=64, max_tokens=128)
    message = pb.Tenant(tenant_id="acme", request_budget=budget, queue=_limits(requests, seconds, nanos))
    wait_ns = seconds * 10**9 + nanos
    is_wait = 0 <= nanos < 10**9 and (wait_ns == 0 or 10**6 <= wait_ns <= HOUR_NS)
    if is_wait and 0 <= requests <= 1024:
        tenant = to_tenant(message)
        check_tenant(tenant)
        assert _numbers(from_tenant(tenant)) == (requests, wait_ns)
        return
    with pytest.raises(errors.InvalidRequestError) as caught:
        check_tenant(to_tenant(message))
    assert caught.value.field in ("tenant.queue.max_requests", "tenant.queue.max_wait")


class Replica:
    """A lease client and its admission; ``acme`` may hold 100 slots."""

    def __init__(self, cluster):
        engine = FakeEngine()
        self.admission = Admission(pool_slots=engine.handshake.pool_slots, buffer_tokens=16)
        self.client = LeaseClient(
            endpoint=cluster.endpoint,
            token=cluster.admin[0][1].removeprefix("Bearer "),
            identity=ReplicaIdentity(replica_id="r0", model="fake", handshake=engine.handshake),
            admission=self.admission,
            desk=Desk(admission=self.admission, engine=engine, clock=lambda: 0.0),
            load=engine.load,
            queue=ReplicaLimits(requests=0, wait_s=5.0),
        )

    async def until(self, holds):
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.01)

    def enter(self, name):
        ask = KvAsk(method="full")
        entry = Entry(request_id=name, tenant_id="acme", ask=ask, prompt_ids=(1,) * 10, max_new_tokens=80)
        self.admission.enter(entry, now=0.0)


async def test_a_change_reaches_a_running_replica_with_its_next_lease(cluster):
    await cluster.add_tenant("acme", queue=_limits(1, 30))
    replica = Replica(cluster)
    admission = replica.admission
    replica.client.start()
    try:
        await replica.until(lambda: admission.leases_in_force(now=0.0).get("acme") == 100)
        epoch, _ = replica.client.standing()
        replica.enter("runs")  # 90 of 100 slots
        replica.enter("waits")
        assert admission.patience_s("waits") == 30.0
        with pytest.raises(BudgetExhaustedError):
            replica.enter("too many")
        await _update(cluster, queue=_limits(2, 45))
        await replica.until(lambda: admission.patience_s("waits") == 45.0)
        replica.enter("waits too")
        with pytest.raises(BudgetExhaustedError):
            replica.enter("too many")
        await _update(cluster)  # none of its own: the replica's, where nobody waits
        await replica.until(lambda: admission.patience_s("waits") == 5.0)
        admission.leave("waits", now=0.0)
        admission.leave("waits too", now=0.0)
        with pytest.raises(BudgetExhaustedError):
            replica.enter("too many")
        assert replica.client.standing()[0] == epoch
    finally:
        await replica.client.stop()


LINES = [
    (_limits(), "Waiting at a replica: as many as its configuration says, each for as long as its configuration says."),
    (_limits(16), "Waiting at a replica: at most 16, each for as long as its configuration says."),
    (_limits(16, 2, 500_000_000), "Waiting at a replica: at most 16, each for at most 2.5 s."),
]


@pytest.mark.parametrize(("queue", "said"), LINES)
def test_people_are_told_the_limits_in_a_sentence(queue, said):
    assert queue_line(pb.Tenant(queue=queue)) == said


def test_the_command_line_sets_shows_and_resets_them(start, tmp_path):
    """In the order of a tenant's life; what is not named stays."""
    controller = start("--capacity-slots", "1000")
    environment = {"REASONSERVE_CONTROLLER": f"127.0.0.1:{controller.port}"}

    def run(verb, *options, code=0):
        words = ["tenant", verb, "team-a", *options, "--state-dir", str(tmp_path)]
        token = (tmp_path / "admin.token").read_text().strip()
        done = CliRunner().invoke(app, words, env=environment | {"REASONSERVE_ADMIN_TOKEN": token})
        assert done.exit_code == code, done.output
        return done.stderr if code else done.stdout

    made = json.loads(run("create", "--queue-requests", "16", "--queue-wait", "2.5", "--json"))["tenant"]
    assert made["queue"] == {"max_requests": 16, "max_wait": "2.500s"}
    assert "at most 16, each for at most 2.5 s" in run("show")
    changed = json.loads(run("set-budget", "--queue-requests", "3", "--json"))["tenant"]
    assert changed["queue"] == {"max_requests": 3, "max_wait": "2.500s"}
    assert "at most 3, each for as long as its configuration says" in run("set-budget", "--queue-wait", "0")
    assert json.loads(run("show", "--json"))["tenant"]["queue"] == {"max_requests": 3}
    assert "--queue-wait: given 1e-10" in run("set-budget", "--queue-wait", "1e-10", code=1)
    for option, wrong in (("--queue-wait", "nan"), ("--queue-wait", "3601"), ("--queue-requests", "1025")):
        run("set-budget", option, wrong, code=2)
    assert json.loads(run("show", "--json"))["tenant"]["queue"] == {"max_requests": 3}
