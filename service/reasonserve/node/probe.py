"""Asks the controller for its health, for pods whose controller speaks TLS: ``python -m reasonserve.node.probe``.

Kubernetes' own gRPC probe knows no TLS.
"""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from reasonserve.controller_client import open_blocking_channel

TIMEOUT_S = 4.0


def serving(endpoint: str) -> bool:
    """Returns whether ``grpc.health.v1`` answers SERVING at ``host:port``; a standby does not.

    Raises:
        StartupError: The certificates that the environment names cannot be read.
    """
    with open_blocking_channel(endpoint) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(not serving(sys.argv[1]))
