"""The data plane's soak sends what it claims, judges every end, and sees memory grow; no stack runs here."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import grpc
import pytest

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import generation_service_pb2_grpc as pb_grpc
from reasonserve.bench.serve_soak import client
from reasonserve.bench.serve_soak.account import HUNG, KILLED, Loss, Outcome, account, judge
from reasonserve.bench.serve_soak.cluster import Holdings
from reasonserve.bench.serve_soak.memory import MIB, Sample, fit, growth_faults, slopes
from reasonserve.bench.serve_soak.plan import FULL, QUICK, Fate, Planned, load, requests, tenants
from reasonserve.bench.serve_soak.report import Report, as_json, ends_table, memory_table, percentile, summary
from reasonserve.bench.serve_soak.run import controller_faults, stack_faults
from reasonserve.bench.serve_soak.traces import loose_ends, run_again, survived
from reasonserve.telemetry import names

VOCABULARY = 602
TOKENS = 20


def planned(*, fate: Fate = "finish", streamed: bool = True) -> Planned:
    return Planned(
        number=7,
        trace_id="5" * 32,
        at_s=9.0,
        tenant="gold",
        prompt=(4, 5, 6),
        new_tokens=TOKENS,
        method="r-kv",
        is_evictable=False,
        is_streamed=streamed,
        fate=fate,
        moment=0.5,
    )


def test_the_load_is_what_it_claims() -> None:
    sent = load(FULL, VOCABULARY, capacity_per_s=4.0)
    assert sent == load(FULL, VOCABULARY, capacity_per_s=4.0)
    assert [r.number for r in sent] == list(range(len(sent)))
    assert len(sent) == pytest.approx(0.7 * 4.0 * 1800, rel=0.05)
    gaps = [b.at_s - a.at_s for a, b in pairwise(sent)]
    mean = sum(gaps) / len(gaps)
    assert sum(gap > mean for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.03)  # exponential: 1 / e
    fates = Counter(r.fate for r in sent)
    assert fates["cancel"] / len(sent) == pytest.approx(0.15, abs=0.02)
    assert fates["kill"] / len(sent) == pytest.approx(0.05, abs=0.015)
    assert set(Counter(r.tenant for r in sent)) == {"gold", "silver", "bronze", "free"}
    assert sum(r.is_streamed for r in sent) / len(sent) == pytest.approx(0.5, abs=0.05)
    assert len({r.prompt[:48] for r in sent}) == 6
    assert len({r.trace_id for r in sent}) == len(sent)
    assert min(r.at_s for r in sent) > 0
    assert max(r.at_s for r in sent) < 1800


def test_the_capacity_is_measured_with_the_same_kind_of_requests_and_none_leaves() -> None:
    calm = requests(QUICK, VOCABULARY, per_s=None)
    drawn = [next(calm) for _ in range(400)]
    sent = load(QUICK, VOCABULARY, capacity_per_s=4.0)
    assert {r.fate for r in drawn} == {"finish"}
    mean = sum(r.new_tokens for r in drawn) / len(drawn)
    assert mean == pytest.approx(sum(r.new_tokens for r in sent) / len(sent), rel=0.1)
    assert not {r.trace_id for r in drawn} & {r.trace_id for r in sent}


def test_no_request_is_refused_for_what_it_is() -> None:
    """Each fits its tenant's limit and the smallest budget, even alone at one replica."""
    limits = {tenant.tenant_id: tenant.limit_slots for tenant in tenants(QUICK)}
    for request in load(QUICK, VOCABULARY, capacity_per_s=4.0):
        growth = request.new_tokens if request.method == "full" else 32 + QUICK.buffer_tokens
        assert len(request.prompt) + min(growth, request.new_tokens) <= limits[request.tenant]
        assert request.message().sampling.max_new_tokens == request.new_tokens
    assert sum(tenant.guaranteed_slots for tenant in tenants(QUICK)) < QUICK.replicas * QUICK.pool_slots


LOSS = Loss(at_s=10.0)
LOST = Outcome("UNAVAILABLE", "gone", messages=2, tokens=5, sent_s=9.0, ended_s=11.0)


@pytest.mark.parametrize(
    ("request_", "outcome", "end"),
    [
        (planned(), Outcome("OK", tokens=TOKENS), "finished"),
        (planned(fate="cancel"), Outcome("OK", tokens=TOKENS), "finished"),
        (planned(fate="cancel"), Outcome("CANCELLED", tokens=3), "cancelled"),
        (planned(fate="kill"), Outcome(KILLED), "client killed"),
        (planned(), Outcome("RESOURCE_EXHAUSTED"), "refused"),
        (planned(), LOST, "lost with its replica"),
    ],
)
def test_ends_that_may_be(request_: Planned, outcome: Outcome, end: str) -> None:
    assert judge(request_, outcome, LOSS) == (end, "")


@pytest.mark.parametrize(
    ("request_", "outcome", "loss"),
    [
        (planned(), Outcome("OK", tokens=TOKENS - 1), LOSS),
        (planned(), Outcome("OK", tokens=TOKENS + 1), LOSS),
        (planned(fate="cancel"), Outcome("CANCELLED", tokens=TOKENS + 1), LOSS),
        (planned(), Outcome("CANCELLED"), LOSS),
        (planned(fate="kill"), Outcome("CANCELLED"), LOSS),
        (planned(), Outcome(KILLED), LOSS),
        (planned(), Outcome("RESOURCE_EXHAUSTED", messages=1), LOSS),
        (planned(), Outcome("DEADLINE_EXCEEDED"), LOSS),
        (planned(), Outcome("INTERNAL"), LOSS),
        (planned(), Outcome(HUNG), LOSS),
        (planned(), LOST, None),
        (planned(streamed=False), LOST, LOSS),
        (planned(), replace(LOST, messages=0), LOSS),
        (planned(), replace(LOST, ended_s=9.5), LOSS),
        (planned(), replace(LOST, sent_s=10.5), LOSS),
        (planned(), LOST, Loss(at_s=10.0, survived=frozenset({"5" * 32}))),
    ],
)
def test_ends_that_must_not_be(request_: Planned, outcome: Outcome, loss: Loss | None) -> None:
    end, fault = judge(request_, outcome, loss)
    assert end == "wrong"
    assert fault


def test_a_request_that_nobody_heard_of_again_is_a_fault() -> None:
    found = account([planned(), replace(planned(), number=8)], {7: Outcome("OK", tokens=TOKENS, ended_s=2.0)}, None)
    assert found.ends == {"gold": {"finished": 1, "wrong": 1}}
    assert found.total("finished") == 1
    assert len(found.faults) == 1
    assert "request 8" in found.faults[0]
    assert found.seconds == (2.0,)


def test_what_is_held_at_the_end_is_a_fault() -> None:
    clean = Holdings(replicas=("a", "c"))
    assert stack_faults(QUICK, clean, {"a", "b", "c"}, ("a", "b")) == []
    for leak in ({"reserved": {"gold": 3}}, {"used": {"a": 3}}, {"active": {"gold": 1}}, {"queued": {"gold": 1}}):
        assert len(stack_faults(QUICK, Holdings(replicas=("a", "c"), **leak), {"a", "b", "c"}, ("a", "b"))) == 1
    assert "1 replicas hold" in stack_faults(QUICK, Holdings(replicas=("a",)), {"a", "b", "c"}, ("a", "b"))[0]
    assert "4 replicas were seen" in stack_faults(QUICK, clean, {"a", "b", "c", "d"}, ("a", "b"))[0]
    assert "2 replicas were seen" in stack_faults(QUICK, clean, {"a", "b"}, ("a", "b"))[0]


def test_a_controller_that_was_started_too_often_is_a_fault_with_the_log_beside_it() -> None:
    assert controller_faults(1, ["all is well"]) == []
    told, log = controller_faults(2, ["the controller ended with exit code 3"])
    assert "started again 2 times" in told
    assert "exit code 3" in log
    assert len(controller_faults(0, [])) == 1


def wandering(per_hour: float, count: int = 200) -> list[Sample]:
    """A process whose memory grows by so many MiB an hour and wanders, looked at every 5 s."""
    random_, wander, seen = random.Random(3), 0.0, []
    for number in range(count):
        wander = 0.8 * wander + random_.gauss(0, 0.05)
        at_s = 5.0 * number
        seen.append(Sample("replica", 1, at_s, int((500 + per_hour * at_s / 3600 + wander) * MIB)))
    return seen


def test_a_slope_is_that_of_a_straight_line() -> None:
    assert fit([0, 1800, 3600], [10, 15, 20]) == pytest.approx((10, 10, 10))


@pytest.mark.parametrize("per_hour", [-30.0, 0.0, 30.0])
def test_the_interval_holds_the_growth(per_hour: float) -> None:
    (found,) = slopes(wandering(per_hour), warm_up_s=0.0)
    assert found.low is not None
    assert found.high is not None
    assert found.low < per_hour < found.high
    assert found.high - found.low < 15


def test_the_interval_widens_where_neighbours_are_alike() -> None:
    seen = wandering(0.0)
    values = [sample.rss / MIB for sample in seen]
    times = [sample.at_s for sample in seen]
    shuffled = random.Random(1).sample(values, len(values))
    alike, unlike = (fit(times, mib) for mib in (values, shuffled))
    assert alike[2] - alike[1] > 2 * (unlike[2] - unlike[1])


def test_growth_is_a_fault_and_warm_up_is_not() -> None:
    early = [replace(s, rss=s.rss - int(max(0.0, 300 - s.at_s) * MIB)) for s in wandering(0.0)]
    assert (slopes(early, warm_up_s=0.0)[0].per_hour or 0.0) > 500.0
    assert growth_faults(slopes(early, warm_up_s=300.0), most=60.0) == []
    leaking = slopes(wandering(100.0), warm_up_s=300.0)
    assert "replica 1 grows" in growth_faults(leaking, most=60.0)[0]


def test_a_process_that_was_killed_and_its_successor_are_told_apart() -> None:
    whole = wandering(0.0)
    seen = [*whole, *(replace(s, pid=2) for s in whole[:60]), *(replace(s, pid=3) for s in whole[190:])]
    found = slopes(sorted(seen, key=lambda s: s.at_s), warm_up_s=0.0)
    assert [(s.pid, s.life, s.samples) for s in found] == [(1, "whole", 200), (2, "killed", 60), (3, "started", 10)]
    assert found[1].per_hour is not None
    assert (found[2].per_hour, found[2].low) == (None, None)
    assert growth_faults([found[2]], most=0.0) == []


def test_a_report_is_told_to_people_and_machines() -> None:
    counted = account([planned()], {7: Outcome("OK", tokens=TOKENS, sent_s=9.25, ended_s=11.25)}, None)
    report = Report(
        setup=QUICK,
        capacity_per_s=4.0,
        capacity_refused=2,
        requests=1,
        seconds=12.0,
        replica_killed_s=3.0,
        controller_killed_s=6.0,
        account=counted,
        slopes=tuple(slopes(wandering(0.0), warm_up_s=900.0)),
        run_again=2,
        faults=(),
    )
    assert "70% of the 4.00 a second" in summary(report)
    assert "0.25 s late" in summary(report)
    assert ends_table(report).row_count == 2
    assert memory_table(report).row_count == 1
    written = json.loads(json.dumps(as_json(report)))
    assert written["account"]["seconds"]["p50"] == 2.0
    assert written["account"]["ends"] == {"gold": {"finished": 1}}


def span(number: int, parent: str | None, *, trace_id: str = "5" * 32, **more: Any) -> dict[str, Any]:
    told = {"name": f"span {number}", "events": [], "attributes": {}}
    return told | {"trace_id": trace_id, "span_id": f"{number:016x}", "parent_id": parent} | more


def test_a_trace_is_connected_where_every_parent_is_known() -> None:
    request = planned()
    assert request.span_id == "5" * 15 + "1"
    assert request.traceparent == f"00-{'5' * 32}-{request.span_id}-01"
    whole = [span(2, f"{1:016x}"), span(1, request.span_id), span(3, "f" * 16, trace_id="6" * 32)]
    assert loose_ends([request], whole) == []
    assert loose_ends([request], [*whole, span(4, "f" * 16)]) == ["request 7: its trace has no parent of span 4"]
    assert loose_ends([request], [*whole, span(5, None)]) == ["request 7: its trace has no parent of span 5"]


def test_spans_tell_who_was_run_again_and_who_outlived_the_kill() -> None:
    again = span(1, None, events=[{"name": names.EVENT_RETRY}])
    handled = span(2, None, attributes={names.REPLICA_ID: "b", names.OPERATION: "chat"})
    assert run_again([planned()], [again, handled]) == 1
    assert run_again([planned()], [handled, again | {"trace_id": "6" * 32}]) == 0
    assert survived([again, handled], {"b"}) == {"5" * 32}
    assert survived([again, handled], {"a"}) == frozenset()
    admitted = span(3, None, attributes={names.REPLICA_ID: "b"})
    assert survived([again, admitted], {"b"}) == frozenset()


def test_percentiles() -> None:
    assert percentile([], 50) == 0.0
    assert [percentile([1, 2, 3, 4], p) for p in (0, 25, 50, 99)] == [1, 1, 2, 4]


class Answers(pb_grpc.GenerationServiceServicer):
    """Refuses unary calls, answers streams."""

    def Generate(self, request: pb.GenerateRequest, context: grpc.ServicerContext) -> pb.GenerateResponse:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")

    def GenerateStream(self, request: pb.GenerateRequest, context: grpc.ServicerContext):  # type: ignore[no-untyped-def]
        assert ("authorization", "Bearer key") in [(m.key, m.value) for m in context.invocation_metadata()]
        for token in request.tokens.ids:
            yield pb.GenerateResponse(token_ids=[token, token])
        yield pb.GenerateResponse()


@pytest.mark.parametrize(
    ("streamed", "end"),
    [
        (True, {"code": "OK", "details": "", "messages": 3, "tokens": 6}),
        (False, {"code": "RESOURCE_EXHAUSTED", "details": "full", "messages": 0, "tokens": 0}),
    ],
)
def test_a_client_of_its_own_tells_how_its_request_ended(streamed: bool, end: dict[str, object]) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    pb_grpc.add_GenerationServiceServicer_to_server(Answers(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    metadata = (("authorization", "Bearer key"),)
    line = client.job(planned().message(), metadata, streamed=streamed, timeout_s=30.0)
    told = io.StringIO()
    client.main(f"127.0.0.1:{port}", io.StringIO(line), told)
    server.stop(None).wait()
    ready, said = told.getvalue().splitlines()
    assert ready == client.READY
    assert json.loads(said) == end
