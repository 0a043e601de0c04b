"""The floor: a plain ``grpc.aio`` server of the same contract, in a process of its own.

``python -m reasonserve.bench.latency.bare`` prints its port and serves until its standard input closes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import generation_service_pb2_grpc as pb_grpc
from reasonserve.bench.latency.noop import pace_s


class Bare(pb_grpc.GenerationServiceServicer):
    """Answers with what the no-op engine makes."""

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:  # noqa: N802
        """Returns the whole answer."""
        total = request.sampling.max_new_tokens
        return pb.GenerateResponse(request_id="r", text="x" * total, token_ids=[120] * total)

    async def GenerateStream(  # noqa: N802
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Yields one token a message."""
        pause_s = pace_s(request.prompt.encode())
        for _ in range(request.sampling.max_new_tokens):
            await asyncio.sleep(pause_s)
            yield pb.GenerateResponse(request_id="r", text="x", token_ids=[120])


async def serve(servicer: Callable[[], pb_grpc.GenerationServiceServicer]) -> None:
    """Serves until the standard input closes.

    Args:
        servicer: Makes what answers, on the running loop.
    """
    server = grpc.aio.server()
    pb_grpc.add_GenerationServiceServicer_to_server(servicer(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(serve(Bare))
