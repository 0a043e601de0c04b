"""From one replica to two under KV pressure, through the death of an engine, and back: nobody's request fails."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import psutil
import pytest

from reasonserve.api.v1 import cluster_service_pb2 as cluster_pb
from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import generation_service_pb2_grpc as pb_grpc
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.bench.local_stack import LocalStack
from reasonserve.bench.serve_soak import cluster
from reasonserve.cli import client, tracing
from reasonserve.telemetry import names
from reasonserve.telemetry.tree import Record

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

CLIENTS, STREAMS, STREAM_TOKENS = 10, 6, 400
SCALE_S = 400.0
"""A guard against waiting for ever; what is measured here is that it happens."""


def wait_until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SCALE_S
    while not check():
        assert time.monotonic() < deadline, f"the condition was not met within {SCALE_S} s"
        time.sleep(0.2)


@dataclass
class Pressure:
    """Clients that keep asking for more than one pool holds.

    Attributes:
        stack: Where they ask.
        key: The tenant's key.
        answered: Requests that were answered in full.
        failures: What went wrong, in words.
    """

    stack: LocalStack
    key: str
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def metadata(self) -> tuple[tuple[str, str]]:
        return (("authorization", f"Bearer {self.key}"),)

    def request(self, number: int, new_tokens: int) -> pb.GenerateRequest:
        return pb.GenerateRequest(
            tokens=pb.TokenInput(ids=[100 + number, 200 + number, *range(300, 330)]),
            sampling=pb.SamplingOptions(max_new_tokens=new_tokens, ignore_eos=True),
            kv=pb.KvOptions(method="r-kv"),
        )

    def ask(self, number: int) -> None:
        with grpc.insecure_channel(self.stack.endpoint) as channel:
            stub = pb_grpc.GenerationServiceStub(channel)
            while not self.stopping.is_set():
                try:
                    answer = stub.Generate(self.request(number, 200), metadata=self.metadata)
                except grpc.RpcError as error:
                    self.failures.append(f"{error.code()}: {error.details()}")
                    return
                assert answer.usage.output_tokens == 200
                self.answered += 1

    def follow(self, number: int) -> tuple[int, grpc.StatusCode]:
        """Reads a stream to its end; returns how many tokens came and how it ended."""
        tokens = 0
        with grpc.insecure_channel(self.stack.endpoint) as channel:
            stub = pb_grpc.GenerationServiceStub(channel)
            try:
                for part in stub.GenerateStream(self.request(50 + number, STREAM_TOKENS), metadata=self.metadata):
                    tokens += len(part.token_ids)
            except grpc.RpcError as error:
                return tokens, error.code()
        return tokens, grpc.StatusCode.OK

    def replicas(self) -> int:
        with client.admin(None, None, self.stack.state_dir) as admin:
            request = cluster_pb.GetClusterStatusRequest()
            return len(admin.call(admin.services.cluster.GetClusterStatus, request).replicas)


@pytest.fixture(scope="module")
def pressure(two_replicas: LocalStack) -> Iterator[Pressure]:
    """Two replicas under pressure, one of them started because of it."""
    budget = tenant_pb.RequestBudget(min_tokens=32, default_tokens=128, max_tokens=256)
    tenant = tenant_pb.Tenant(tenant_id="team", weight=1, limit_slots=4096, request_budget=budget)
    made = Pressure(two_replicas, two_replicas.create_tenant(tenant))
    assert made.replicas() == 1
    with ThreadPoolExecutor(CLIENTS) as clients:
        asking = [clients.submit(made.ask, number) for number in range(CLIENTS)]
        try:
            wait_until(lambda: made.replicas() == 2 or bool(made.failures))
            yield made
        finally:
            made.stopping.set()
        for future in asking:
            future.result()


def schedulers(stack: LocalStack) -> list[psutil.Process]:
    """Returns the scheduler processes of the stack's engines."""
    return cluster.processes(stack)[cluster.ENGINE]


def test_pressure_brings_a_second_replica(pressure: Pressure) -> None:
    assert pressure.failures == []
    assert pressure.replicas() == 2


def test_when_an_engine_dies_streams_end_and_whole_answers_are_made_elsewhere(pressure: Pressure) -> None:
    """Every unary call is answered; of the streams some end with UNAVAILABLE, and none repeats a token."""
    with ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(pressure.follow, number) for number in range(STREAMS)]
        wait_until(lambda: len(schedulers(pressure.stack)) == 2)
        time.sleep(2.0)  # the streams have begun
        schedulers(pressure.stack)[0].kill()
        ended = [future.result() for future in streams]
    before = pressure.answered
    wait_until(lambda: pressure.answered >= before + CLIENTS or bool(pressure.failures))
    assert pressure.failures == []
    for tokens, code in ended:
        assert (tokens, code) == (STREAM_TOKENS, grpc.StatusCode.OK) or (
            tokens < STREAM_TOKENS and code is grpc.StatusCode.UNAVAILABLE
        )


def run_again(stack: LocalStack) -> list[list[Record]]:
    """Returns the spans so far of each request that was run again, as the gateway says."""
    traces = defaultdict[str, list[Record]](list)
    for span in stack.spans:
        traces[span["trace_id"]].append(span)
    return [
        spans for spans in traces.values() if any(e["name"] == names.EVENT_RETRY for s in spans for e in s["events"])
    ]


def test_a_request_that_was_run_again_is_one_connected_trace(pressure: Pressure) -> None:
    """One root and no orphan; in it the retry, the second try's admission and the engine that answered."""

    def is_whole(spans: list[Record]) -> bool:
        attempts = {span["attributes"].get(names.ATTEMPT) for span in spans}
        answered = any(names.FINISH_REASONS in span["attributes"] for span in spans)
        return tracing.is_connected(spans) and 1 in attempts and answered

    wait_until(lambda: bool(again := run_again(pressure.stack)) and all(map(is_whole, again)))


def test_without_pressure_the_second_replica_is_drained_and_goes(pressure: Pressure) -> None:
    wait_until(lambda: pressure.replicas() == 2)  # the dead one was replaced, for the pressure goes on
    with ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(pressure.follow, number) for number in range(2)]
        pressure.stopping.set()
        assert [future.result() for future in streams] == [(STREAM_TOKENS, grpc.StatusCode.OK)] * 2
    wait_until(lambda: pressure.replicas() == 1)
    assert pressure.failures == []
