"""Cancellation of streams, on a gRPC server without Ray: the handlers are those that Ray would put in."""

import asyncio

import grpc
import pytest

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import generation_service_pb2_grpc as pb_grpc
from reasonserve.gateway.proxy import add_generation_service

pytestmark = pytest.mark.timeout(30)

BIG = pb.GenerateResponse(text="x" * 65536)


class Servicer(pb_grpc.GenerationServiceServicer):
    """Streams more than a connection buffers, then waits; notes how it was ended."""

    def __init__(self):
        self.ended = asyncio.get_running_loop().create_future()

    async def Generate(self, request, context):
        return pb.GenerateResponse(text="whole")

    async def GenerateStream(self, request, context):
        if request.prompt == "short":
            yield pb.GenerateResponse(text="1")
            yield pb.GenerateResponse(text="2")
            return
        if request.prompt == "fail":
            yield pb.GenerateResponse(text="1")
            context.set_code(grpc.StatusCode.DATA_LOSS)
            context.set_details("lost")
            return
        try:
            for _ in range(200):
                yield BIG
            await asyncio.Event().wait()
        except BaseException as error:
            self.ended.set_result(type(error))
            raise


@pytest.fixture
async def served():
    servicer = Servicer()
    server = grpc.aio.server()
    add_generation_service(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield servicer, pb_grpc.GenerationServiceStub(channel)
    await server.stop(None)


async def test_a_client_that_reads_slowly_and_leaves_cancels_the_handler(served):
    servicer, stub = served
    call = stub.GenerateStream(pb.GenerateRequest(prompt="long"))
    assert (await call.read()).text
    call.cancel()
    assert await servicer.ended is asyncio.CancelledError


async def test_whole_streams_and_answers_pass(served):
    _, stub = served
    assert [part.text async for part in stub.GenerateStream(pb.GenerateRequest(prompt="short"))] == ["1", "2"]
    assert (await stub.Generate(pb.GenerateRequest())).text == "whole"


async def test_a_status_comes_after_the_messages(served):
    _, stub = served
    call = stub.GenerateStream(pb.GenerateRequest(prompt="fail"))
    assert (await call.read()).text == "1"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.DATA_LOSS, "lost")
