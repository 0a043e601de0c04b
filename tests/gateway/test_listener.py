"""The gateway's own gRPC server, without Ray: statuses, cancellation, deadlines, traces, health, reflection."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import generation_service_pb2_grpc as pb_grpc
from reasonserve.errors import InvalidRequestError, StartupError
from reasonserve.gateway import listener as listening
from reasonserve.gateway.listener import SERVICE, Listener
from reasonserve.gateway.service import DEADLINE_KEY

pytestmark = pytest.mark.timeout(30)

BIG = pb.GenerateResponse(text="x" * 65536)


class Service:
    """In place of ``GatewayService``: answers by the prompt, and notes how a long stream was ended."""

    def __init__(self):
        self.ended = asyncio.get_running_loop().create_future()
        self.metadata = {}

    async def answer(self, request, metadata):
        self.metadata = dict(metadata)
        if request.prompt == "refuse":
            raise InvalidRequestError("The prompt is refused.", field="prompt")
        if request.prompt == "break":
            raise RuntimeError("a secret at /a/path")
        if request.prompt == "wait":
            await asyncio.Event().wait()
        return pb.GenerateResponse(text="whole")

    async def stream(self, request, metadata):
        yield pb.GenerateResponse(text="1")
        if request.prompt == "refuse":
            raise InvalidRequestError("The prompt is refused.", field="prompt")
        if request.prompt == "long":
            try:
                for _ in range(200):
                    yield BIG
                await asyncio.Event().wait()
            except BaseException as error:
                self.ended.set_result(type(error))
                raise
        yield pb.GenerateResponse(text="2")


@asynccontextmanager
async def listener(service, **changes):
    options = {"host": "127.0.0.1", "port": 0, "max_message_bytes": 1 << 20, "max_calls": 8} | changes
    made = Listener(service, **options)
    try:
        yield made, await made.start()
    finally:
        await made.stop(0)


@pytest.fixture
async def served():
    service = Service()
    async with listener(service) as (_, port), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield service, channel


@pytest.fixture
def exported(monkeypatch):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


async def last_of(stream):
    async for part in stream:
        last = part
    return last


def ask(prompt="", **options):
    return pb.GenerateRequest(prompt=prompt, **options)


async def test_whole_answers_and_streams_pass(served):
    stub = pb_grpc.GenerationServiceStub(served[1])
    assert (await stub.Generate(ask())).text == "whole"
    assert [part.text async for part in stub.GenerateStream(ask())] == ["1", "2"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_refusal_says_which_field(served, streamed):
    stub = pb_grpc.GenerationServiceStub(served[1])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (last_of(stub.GenerateStream(ask("refuse"))) if streamed else stub.Generate(ask("refuse")))
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "The prompt is refused.",
    )
    (packed, *_) = [
        d for d in rpc_status.from_call(caught.value).details if d.Is(error_details_pb2.BadRequest.DESCRIPTOR)
    ]
    violation = error_details_pb2.BadRequest()
    packed.Unpack(violation)
    assert violation.field_violations[0].field == "prompt"


async def test_an_unforeseen_error_tells_nothing(served):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pb_grpc.GenerationServiceStub(served[1]).Generate(ask("break"))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in caught.value.details() + repr(caught.value.trailing_metadata())


async def test_a_client_that_reads_slowly_and_leaves_cancels_the_stream(served):
    service, channel = served
    call = pb_grpc.GenerationServiceStub(channel).GenerateStream(ask("long"))
    assert (await call.read()).text
    call.cancel()
    assert await service.ended in (asyncio.CancelledError, GeneratorExit)


async def test_grpcs_own_deadline_is_known_and_kept(served):
    service, channel = served
    stub = pb_grpc.GenerationServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Generate(ask("wait"), timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0 < int(service.metadata[DEADLINE_KEY]) <= 500
    await stub.Generate(ask(), timeout=5, metadata=((DEADLINE_KEY, "77"),))
    assert service.metadata[DEADLINE_KEY] == "77"
    await stub.Generate(ask())
    assert DEADLINE_KEY not in service.metadata


async def test_each_call_is_a_span_below_the_callers(served, exported):
    stub = pb_grpc.GenerationServiceStub(served[1])
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await stub.Generate(ask(), metadata=(("traceparent", parent),))
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Generate(ask("break"))
    call = stub.GenerateStream(ask("long"))
    await call.read()
    call.cancel()
    await served[0].ended
    while len(spans := exported.get_finished_spans()) < 3:
        await asyncio.sleep(0.01)
    assert [span.name for span in spans] == [f"{SERVICE}/{m}" for m in ("Generate", "Generate", "GenerateStream")]
    assert [span.attributes["rpc.grpc.status_code"] for span in spans] == [0, 13, 1]
    assert [span.status.is_ok for span in spans] == [True, False, True]
    assert trace.format_trace_id(spans[0].context.trace_id) == parent.split("-")[1]
    assert trace.format_span_id(spans[0].parent.span_id) == parent.split("-")[2]
    assert spans[1].parent is None


async def test_health_and_reflection_answer(served):
    health = health_pb2_grpc.HealthStub(served[1])
    for name in ("", SERVICE):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    stream = reflection_pb2_grpc.ServerReflectionStub(served[1]).ServerReflectionInfo()
    await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = {service.name for service in (await stream.read()).list_services_response.service}
    assert SERVICE in listed
    stream.cancel()


async def test_running_calls_end_before_the_listener_does():
    service = Service()
    async with listener(service) as (made, port), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = pb_grpc.GenerationServiceStub(channel).Generate(ask("wait"), timeout=20)
        while not service.metadata:
            await asyncio.sleep(0.01)
        stopping = asyncio.create_task(made.stop(0.3))
        await asyncio.sleep(0.1)
        assert not call.done()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        await stopping
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_one_call_too_many_is_refused():
    service = Service()
    async with (
        listener(service, max_calls=1) as (_, port),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = pb_grpc.GenerationServiceStub(channel)
        waiting = stub.Generate(ask("wait"))
        while not service.metadata:
            await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(ask())
        waiting.cancel()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_taken_port_is_refused_and_a_freed_one_taken(monkeypatch):
    monkeypatch.setattr(listening, "BIND_PATIENCE_S", 0.3)
    async with listener(Service()) as (first, port):
        with pytest.raises(StartupError, match=r"set gateway\.port"):
            async with listener(Service(), port=port):
                pass
        monkeypatch.setattr(listening, "BIND_PATIENCE_S", 10.0)
        starting = asyncio.create_task(
            Listener(Service(), host="127.0.0.1", port=port, max_message_bytes=1024, max_calls=1).start()
        )
        await asyncio.sleep(0.3)
        assert not starting.done()
        await first.stop(0)
        assert await starting == port
