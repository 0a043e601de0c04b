"""A client of one request, made to be killed: ``python -m reasonserve.bench.serve_soak.client ENDPOINT``.

It connects, says ``ready``, waits for the request on its standard input and prints how it ended, if it lives to see it.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import TextIO

import grpc

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import generation_service_pb2_grpc as pb_grpc

CONNECT_S = 60.0
READY = "ready"


def job(request: pb.GenerateRequest, metadata: tuple[tuple[str, str], ...], *, streamed: bool, timeout_s: float) -> str:
    """Returns the line that asks a client for a request."""
    message = base64.b64encode(request.SerializeToString()).decode()
    return json.dumps({"request": message, "metadata": metadata, "streamed": streamed, "timeout_s": timeout_s}) + "\n"


def run(channel: grpc.Channel, line: str) -> dict[str, object]:
    """Sends what a line asks for and returns the end: code, details, messages with tokens, tokens."""
    asked = json.loads(line)
    request = pb.GenerateRequest.FromString(base64.b64decode(asked["request"]))
    stub = pb_grpc.GenerationServiceStub(channel)  # type: ignore[no-untyped-call]
    options = {"metadata": [tuple(pair) for pair in asked["metadata"]], "timeout": asked["timeout_s"]}
    end: dict[str, object] = {"code": "OK", "details": "", "messages": 0, "tokens": 0}
    tokens = messages = 0
    try:
        answers = stub.GenerateStream(request, **options) if asked["streamed"] else [stub.Generate(request, **options)]
        for answer in answers:
            messages += bool(answer.token_ids)
            tokens += len(answer.token_ids)
    except grpc.RpcError as error:
        end |= {"code": error.code().name, "details": error.details() or ""}
    return end | {"messages": messages, "tokens": tokens}


def main(endpoint: str, given: TextIO, told: TextIO) -> None:
    """Runs one request; ends without one where the standard input closes first."""
    with grpc.insecure_channel(endpoint) as channel:
        grpc.channel_ready_future(channel).result(timeout=CONNECT_S)
        told.write(READY + "\n")
        told.flush()
        if line := given.readline():
            told.write(json.dumps(run(channel, line)) + "\n")
            told.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin, sys.stdout)
