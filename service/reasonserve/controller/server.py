"""The gRPC server: every service of the controller, health and reflection, behind authentication."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from reasonserve.api.v1 import cluster_service_pb2 as cluster_pb
from reasonserve.api.v1 import cluster_service_pb2_grpc as cluster_grpc
from reasonserve.api.v1 import lease_service_pb2 as lease_pb
from reasonserve.api.v1 import lease_service_pb2_grpc as lease_grpc
from reasonserve.api.v1 import profile_service_pb2 as profile_pb
from reasonserve.api.v1 import profile_service_pb2_grpc as profile_grpc
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.api.v1 import tenant_service_pb2_grpc as tenant_grpc
from reasonserve.controller.auth import ScopeInterceptor, Tokens
from reasonserve.controller.cluster_servicer import ClusterServicer
from reasonserve.controller.core import Controller
from reasonserve.controller.keyring import Keyring
from reasonserve.controller.lease_servicer import LeaseServicer
from reasonserve.controller.profile_servicer import ProfileServicer
from reasonserve.controller.servicer import TenantServicer
from reasonserve.controller.wellformed import WellFormedInterceptor

SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (tenant_pb, "TenantService"),
        (profile_pb, "ProfileService"),
        (cluster_pb, "ClusterService"),
        (lease_pb, "LeaseService"),
    )
)
_SERVER_OPTIONS = (
    # Without this a second controller would bind the same port and take half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
)


def build_server(controller: Controller, tokens: Tokens) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    """Returns a server with all services, not yet bound or started, and its health."""
    keyring = Keyring(controller)
    interceptors = [WellFormedInterceptor(), ScopeInterceptor(tokens, keyring)]
    server = grpc.aio.server(interceptors=interceptors, options=_SERVER_OPTIONS)
    # The generated functions are untyped; the ignores name nothing else.
    tenant_grpc.add_TenantServiceServicer_to_server(TenantServicer(controller, keyring), server)  # type: ignore[no-untyped-call]
    profile_grpc.add_ProfileServiceServicer_to_server(ProfileServicer(controller), server)  # type: ignore[no-untyped-call]
    cluster_grpc.add_ClusterServiceServicer_to_server(ClusterServicer(controller), server)  # type: ignore[no-untyped-call]
    lease_grpc.add_LeaseServiceServicer_to_server(LeaseServicer(controller), server)  # type: ignore[no-untyped-call]
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return server, health_servicer
