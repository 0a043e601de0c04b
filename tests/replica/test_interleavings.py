"""Whatever requests do and in whatever order, what they reserved comes back: on the service with the fake engine."""

import asyncio
from contextlib import aclosing

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from reasonserve.replica.admission import Admission, Lease
from reasonserve.replica.desk import Desk
from reasonserve.replica.fake_engine import FakeEngine
from reasonserve.replica.figures import Figures
from reasonserve.replica.messages import GenerateCall, PromptInput
from reasonserve.replica.protocol import Sampling
from reasonserve.replica.service import ReplicaService
from reasonserve.replica.sizing import KvAsk, QueueLimits, TenantTerms
from reasonserve.replica.watch import EngineWatch
from reasonserve.telemetry.prometheus import PrometheusRecorder

BUFFER = 16


def lease(slots, epoch):
    tenants = {
        name: TenantTerms(
            tenant_id=name,
            slots=slots,
            guaranteed_slots=guaranteed,
            limit_slots=600,
            min_tokens=32,
            default_tokens=64,
            max_tokens=128,
            queue=QueueLimits(wait_s=0.2),
        )
        for name, guaranteed in (("a", 0), ("b", 300))
    }
    return Lease(epoch=epoch, ttl_s=300.0, tenants=tenants, num_replicas=1)


# How a request ends: by itself, closed or cancelled by its client after some items, refused, or by a fault.
ends = st.one_of(
    st.just(("finish", 0)),
    st.tuples(st.sampled_from(["close", "cancel"]), st.integers(0, 12)),
    st.just(("!raise", 0)),
)
requests = st.tuples(
    st.sampled_from("ab"),
    ends,
    st.integers(1, 60),
    st.sampled_from(["full", "r-kv"]),
    st.integers(1, 2),
    st.none() | st.floats(0.001, 0.05),
)


class Scene:
    """A service on the fake engine, and what happens to it."""

    def __init__(self):
        self.engine = FakeEngine()
        self.admission = Admission(pool_slots=700, buffer_tokens=BUFFER)
        self.desk = Desk(admission=self.admission, engine=self.engine)
        self.watch = EngineWatch(self.engine, period_s=0.001)
        figures = Figures(PrometheusRecorder(CollectorRegistry()))
        self.service = ReplicaService(
            engine=self.engine, desk=self.desk, watch=self.watch, model="fake", figures=figures
        )
        self.lease(600)

    def lease(self, slots, epoch=1):
        self.desk.apply_lease(lease(slots, epoch), granted_at=asyncio.get_running_loop().time())

    async def request(self, number, tenant, end, new_tokens, method, outputs, patience_s):
        how, after = end
        call = GenerateCall(
            request_id=f"r{number}",
            tenant_id=tenant,
            input=PromptInput(text=f"{number} " * 20 + (how if how == "!raise" else "")),
            sampling=Sampling(max_new_tokens=new_tokens),
            kv=KvAsk(method=method),
            num_outputs=outputs,
            patience_s=patience_s,
        )
        items = self.service.generate(call)
        try:
            async with aclosing(items):
                async for _ in items:
                    after -= 1
                    if how == "close" and after <= 0:
                        return
        except asyncio.CancelledError:
            pass


@given(
    work=st.lists(requests, min_size=1, max_size=12),
    leases=st.lists(st.integers(0, 600), max_size=3),
    dies=st.booleans(),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_reservations_return_to_zero(work, leases, dies, order):
    async def play():
        scene = Scene()
        scene.desk.start()
        scene.watch.start()
        tasks = [asyncio.create_task(scene.request(n, *one)) for n, one in enumerate(work)]
        events = [lambda t=t: t.cancel() for t, one in zip(tasks, work, strict=True) if one[1][0] == "cancel"]
        events += [lambda s=s, e=e: scene.lease(s, e) for e, s in enumerate(leases, start=2)]
        events += [scene.engine.shutdown] if dies else []
        order.shuffle(events)
        for event in events:
            for _ in range(order.randrange(6)):
                await asyncio.sleep(0)
            event()
            scene.admission.check_integrity()
        ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        assert [e for e in ended if isinstance(e, Exception)] == []
        await scene.desk.stop()
        await scene.watch.stop()
        return scene

    scene = asyncio.run(play())
    scene.admission.check_integrity()
    assert scene.admission.reserved_by("a") == scene.admission.reserved_by("b") == 0
    assert scene.admission.queued_requests == 0
    assert scene.engine.running == {}
