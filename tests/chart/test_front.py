"""The front's container, for real: its own command line becomes HAProxy, mTLS in front of a gRPC server."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent import futures
from contextlib import contextmanager

import grpc
import pytest

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import generation_service_pb2_grpc as pb_grpc
from reasonserve.front.haproxy import MAX_SERVERS, Front, render


class Backend(pb_grpc.GenerationServiceServicer):
    """Answers with the name that the front found in the client's certificate."""

    def Generate(self, request, context):
        return pb.GenerateResponse(text=dict(context.invocation_metadata()).get("x-client-cn", ""))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def grpc_server():
    server = grpc.server(futures.ThreadPoolExecutor(2))
    pb_grpc.add_GenerationServiceServicer_to_server(Backend(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(grace=None).wait()


@pytest.fixture(scope="module")
def front(chart, certificates, tmp_path_factory):
    """The ports of a running front: for clients and for the kubelet."""
    folder = tmp_path_factory.mktemp("front")
    port, health = free_port(), free_port()
    sets = (f"config.front.port={port}", f"front.healthPort={health}")
    release = chart.render(file="values-multi-tenant.yaml", sets=sets)
    (container,) = release.pods()["front"]["spec"]["containers"]
    (folder / "config.yaml").write_text(release.one("ConfigMap", "-config")["data"]["config.yaml"])
    with grpc_server() as backend:
        moved = {
            "/etc/reasonserve/config": str(folder),
            "/etc/reasonserve/tls": str(certificates),
            "rs-reasonserve-serve-svc.serving.svc:9000": f"127.0.0.1:{backend}",
            "rs-reasonserve-serve-svc.serving.svc:8000": f"127.0.0.1:{backend}",
        }
        argv = [sys.executable, *container["command"][1:], *container["args"]]
        for there, here in moved.items():
            argv = [word.replace(there, here) for word in argv]
        with subprocess.Popen(argv) as process:
            wait_for(port, process)
            yield port, health
            process.terminate()


def wait_for(port, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("the front does not listen")


def answer(port, credentials):
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        return pb_grpc.GenerationServiceStub(channel).Generate(pb.GenerateRequest(), timeout=10).text


def test_a_client_is_who_its_certificate_says(front, certificates):
    authority, key, own = [
        (certificates / name).read_bytes() for name in ("ca.crt", "tenant-acme.key", "tenant-acme.crt")
    ]
    assert answer(front[0], grpc.ssl_channel_credentials(authority, key, own)) == "tenant-acme"


def test_without_a_certificate_nobody_gets_in(front, certificates):
    with pytest.raises(grpc.RpcError) as refusal:
        answer(front[0], grpc.ssl_channel_credentials((certificates / "ca.crt").read_bytes()))
    assert refusal.value.code() == grpc.StatusCode.UNAVAILABLE


def test_the_kubelets_page(front):
    """The stand-in has no HTTP proxy behind it: once that is found out, the front lives and is not ready."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 60
    status = 200
    while status == 200 and time.monotonic() < deadline:
        try:
            with opener.open(f"http://127.0.0.1:{front[1]}/healthz", timeout=10):
                time.sleep(0.2)
        except urllib.error.HTTPError as answer:
            status = answer.code
            answer.close()
    assert status == 503


def test_a_name_means_all_of_its_addresses():
    """The serving Service is headless: each of its addresses is a gateway."""
    place = {"bind": ":9443", "certificate": "tls.crt", "max_bytes": 1}
    named = render(Front(**place, grpc_server="serve.ns.svc:9000", http_server="serve.ns.svc:8000"))
    assert f"server-template serve {MAX_SERVERS} serve.ns.svc:9000 proto h2 resolvers dns" in named
    assert "server serve 127.0.0.1:9000 proto h2\n" in render(
        Front(**place, grpc_server="127.0.0.1:9000", http_server="127.0.0.1:8000")
    )
