"""The front's HAProxy configuration. Pure: a text from figures; the same for the local stack and for a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from reasonserve.api.v1 import generation_service_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["GenerationService"].full_name
GRPC_PATHS = (f"/{SERVICE}/", "/grpc.reflection.v1alpha.ServerReflection/", "/grpc.reflection.v1.ServerReflection/")
"""What a gRPC client may call. Ray Serve's own service, which lists applications, is not among it."""
HTTP_PATHS = ("/v1/",)
"""What an HTTP client may call. Ray Serve's own pages are not among it."""
CLIENT_NAME_HEADER = "x-client-cn"
"""Common name of the client's certificate; what a client sends under this name is dropped."""
IDLE = "1h"
"""Longest silence on a stream: a request may wait that long for its first token."""
DRAIN = "60s"
MAX_SERVERS = 64
"""Most addresses that a name is taken to mean; calls are spread over those it has."""

_GLOBAL = """\
# ReasonServe's front: TLS for gRPC and HTTP, and nothing else gets through.
global
  maxconn {max_connections}
  log stderr format raw daemon notice
  hard-stop-after {drain}
  ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
  # tls.crt has its key beside it as tls.key.
  ssl-load-extra-del-ext
  tune.h2.max-concurrent-streams 1024

defaults
  mode http
  log global
  option dontlog-normal
  timeout connect 5s
  timeout http-request 30s
  timeout http-keep-alive 60s
  timeout queue 10s
  timeout client {idle}
  timeout server {idle}
"""
_FRONT = """
frontend front
  bind {bind} ssl crt {certificate} alpn h2,http/1.1{verify}
{identity}
  acl is_grpc req.hdr(content-type) -m beg application/grpc
  acl may_grpc path_beg {grpc_paths}
  acl may_http path_beg {http_paths}
  http-request deny deny_status 413 if {{ req.body_size gt {max_bytes} }}
  # A gRPC client reads its status from the headers.
  http-request return status 200 hdr grpc-status 12 hdr grpc-message "No such method." if is_grpc !may_grpc
  http-request deny deny_status 404 if !is_grpc !may_http
  http-response del-header server
  use_backend grpc if is_grpc
  default_backend http
"""
_HEALTH = """
frontend health
  bind {bind}
  monitor-uri /healthz
  monitor fail if {{ nbsrv(http) lt 1 }}
  http-request deny deny_status 404
"""
_BACKENDS = """
backend grpc
  balance leastconn
  {server} {grpc_server} proto h2{resolve}

backend http
  balance leastconn
  option httpchk GET /-/healthz
  {server} {http_server} check inter 2s{resolve}
"""
_RESOLVERS = """
# A name may come to exist, or to mean another address, while the front runs.
resolvers dns
  parse-resolv-conf
  accepted_payload_size 8192
  hold valid 10s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Front:
    """What a front is made of.

    Attributes:
        bind: ``host:port`` for clients.
        certificate: PEM file with certificate and key, or a ``.crt`` whose key lies beside it as ``.key``.
        client_ca: PEM file; clients must present a certificate that one of these signed. Empty asks for none.
        grpc_server: ``host:port`` of Ray Serve's gRPC proxy.
        http_server: ``host:port`` of Ray Serve's HTTP proxy.
        health_bind: ``host:port`` of the plain health page; empty for none.
        max_bytes: Largest body whose length is announced.
        max_connections: Most connections at a time.
    """

    bind: str
    certificate: str
    client_ca: str = ""
    grpc_server: str
    http_server: str
    health_bind: str = ""
    max_bytes: int
    max_connections: int = 1024


def render(front: Front) -> str:
    """Returns HAProxy's configuration.

    Raises:
        ValueError: A value would be read as more than one word.
    """
    words = (front.bind, front.certificate, front.client_ca, front.grpc_server, front.http_server, front.health_bind)
    for word in words:
        if any(not character.isprintable() or character in " \"'\\#$" for character in word):
            raise ValueError(f"{word!r} cannot stand in HAProxy's configuration; use no blanks, quotes, #, $ or \\")
    identity = f"  http-request del-header {CLIENT_NAME_HEADER}"
    if front.client_ca:
        identity += f"\n  http-request set-header {CLIENT_NAME_HEADER} %{{+Q}}[ssl_c_s_dn(cn)]"
    by_name = any(_is_name(server) for server in (front.grpc_server, front.http_server))
    return "".join(
        (
            _GLOBAL.format(max_connections=front.max_connections, drain=DRAIN, idle=IDLE),
            _FRONT.format(
                bind=front.bind,
                certificate=front.certificate,
                verify=f" ca-file {front.client_ca} verify required" if front.client_ca else "",
                identity=identity,
                grpc_paths=" ".join(GRPC_PATHS),
                http_paths=" ".join(HTTP_PATHS),
                max_bytes=front.max_bytes,
            ),
            _HEALTH.format(bind=front.health_bind) if front.health_bind else "",
            _BACKENDS.format(
                grpc_server=front.grpc_server,
                http_server=front.http_server,
                server=f"server-template serve {MAX_SERVERS}" if by_name else "server serve",
                resolve=" resolvers dns init-addr last,none" if by_name else "",
            ),
            _RESOLVERS if by_name else "",
        )
    )


def _is_name(server: str) -> bool:
    """Returns whether a server is named, and not addressed."""
    try:
        ip_address(server.rpartition(":")[0].strip("[]"))
    except ValueError:
        return True
    return False
