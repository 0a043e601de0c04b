"""Makes a real call as a tenant of its own: ``python -m reasonserve.node.smoke``, the chart's test."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import grpc
import typer
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import generation_service_pb2_grpc as pb_grpc
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.controller_client import Stubs, admin_metadata, open_blocking_channel, read_admin_token, stubs
from reasonserve.errors import ReasonServeError, UnavailableError
from reasonserve.status import from_rpc_error

PROMPT = "Name a colour."
NEW_TOKENS = 16
LIMIT_SLOTS = 1024
CALL_TIMEOUT_S = 60.0
WAIT_S = 120.0
"""Replicas hear of a new tenant with their next lease, and a release that was just installed starts slowly."""

GatewayEndpoint = Annotated[str, typer.Option("--gateway", help="host:port of the gateways.")]
ControllerEndpoint = Annotated[str, typer.Option("--controller", help="host:port of the controller.")]
AdminTokenFile = Annotated[Path, typer.Option(help="File that holds the admin token.")]


@contextmanager
def temporary_key(services: Stubs, token: str) -> Iterator[str]:
    """Lends the key of a tenant that is deleted afterwards.

    Raises:
        grpc.RpcError: The controller refused.
    """
    metadata = admin_metadata(token)
    tenant_id = f"test-{uuid.uuid4().hex[:12]}"
    budget = tenant_pb.RequestBudget(min_tokens=32, default_tokens=64, max_tokens=64)
    tenant = tenant_pb.Tenant(tenant_id=tenant_id, weight=1, limit_slots=LIMIT_SLOTS, request_budget=budget)
    created = tenant_pb.CreateTenantRequest(tenant=tenant)
    services.tenants.CreateTenant(created, metadata=metadata, timeout=CALL_TIMEOUT_S)
    try:
        request = tenant_pb.CreateTenantKeyRequest(tenant_id=tenant_id)
        yield str(services.tenants.CreateTenantKey(request, metadata=metadata, timeout=CALL_TIMEOUT_S).key)
    finally:
        gone = tenant_pb.DeleteTenantRequest(tenant_id=tenant_id)
        services.tenants.DeleteTenant(gone, metadata=metadata, timeout=CALL_TIMEOUT_S)


@retry(
    retry=retry_if_exception_type(UnavailableError), wait=wait_fixed(2.0), stop=stop_after_delay(WAIT_S), reraise=True
)
def generate(gateway: str, key: str) -> pb.GenerateResponse:
    """Returns one answer, once a replica serves the tenant.

    Raises:
        ReasonServeError: It was refused, or nothing served in time.
    """
    request = pb.GenerateRequest(prompt=PROMPT, sampling=pb.SamplingOptions(max_new_tokens=NEW_TOKENS))
    metadata = (("authorization", f"Bearer {key}"),)
    with grpc.insecure_channel(gateway) as channel:
        service = pb_grpc.GenerationServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            answer: pb.GenerateResponse = service.Generate(request, metadata=metadata, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
    return answer


def smoke(gateway: GatewayEndpoint, controller: ControllerEndpoint, admin_token_file: AdminTokenFile) -> None:
    """Creates a tenant, generates as it, deletes it; prints what came."""
    try:
        token = read_admin_token(admin_token_file)
        with open_blocking_channel(controller) as channel, temporary_key(stubs(channel), token) as key:
            answer = generate(gateway, key)
    except grpc.RpcError as error:
        sys.stderr.write(f"{from_rpc_error(error).message}\n")
        raise typer.Exit(code=1) from None
    except ReasonServeError as error:
        sys.stderr.write(f"{error.message}\n")
        raise typer.Exit(code=1) from None
    sys.stdout.write(f"{answer.text!r}\n")


if __name__ == "__main__":
    typer.run(smoke)
