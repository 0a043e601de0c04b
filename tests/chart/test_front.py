"""The front's container, for real: its own command line becomes HAProxy, mTLS in front of a gRPC server."""

import datetime
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
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import generation_service_pb2_grpc as pb_grpc
from reasonserve.front.haproxy import MAX_SERVERS, Front, render

PEM = serialization.Encoding.PEM


class Backend(pb_grpc.GenerationServiceServicer):
    """Answers with the name that the front found in the client's certificate."""

    def Generate(self, request, context):
        return pb.GenerateResponse(text=dict(context.invocation_metadata()).get("x-client-cn", ""))


def certificate(name, key, issuer=None, issuer_key=None):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.subject if issuer else subject)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(
        now + datetime.timedelta(days=2)
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    return builder.sign(issuer_key or key, hashes.SHA256())


def write(folder, name, issuer=None, issuer_key=None):
    key = ec.generate_private_key(ec.SECP256R1())
    made = certificate(name, key, issuer, issuer_key)
    pkcs8 = serialization.PrivateFormat.PKCS8
    (folder / f"{name}.crt").write_bytes(made.public_bytes(PEM))
    (folder / f"{name}.key").write_bytes(key.private_bytes(PEM, pkcs8, serialization.NoEncryption()))
    return made, key


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
def front(chart, tmp_path_factory):
    """The port of a running front, and the folder of its certificates."""
    folder = tmp_path_factory.mktemp("front")
    authority = write(folder, "ca")
    for name in ("tls", "tenant-acme"):
        write(folder, name, *authority)
    port, health = free_port(), free_port()
    sets = (f"config.front.port={port}", f"front.healthPort={health}")
    release = chart.render(file="values-multi-tenant.yaml", sets=sets)
    (container,) = release.pods()["front"]["spec"]["containers"]
    (folder / "config.yaml").write_text(release.one("ConfigMap", "-config")["data"]["config.yaml"])
    with grpc_server() as backend:
        moved = {
            "/etc/reasonserve/config": str(folder),
            "/etc/reasonserve/tls": str(folder),
            "rs-reasonserve-serve-svc.serving.svc:9000": f"127.0.0.1:{backend}",
            "rs-reasonserve-serve-svc.serving.svc:8000": f"127.0.0.1:{backend}",
        }
        argv = [sys.executable, *container["command"][1:], *container["args"]]
        for there, here in moved.items():
            argv = [word.replace(there, here) for word in argv]
        with subprocess.Popen(argv) as process:
            wait_for(port, process)
            yield port, health, folder
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


def test_a_client_is_who_its_certificate_says(front):
    port, _, folder = front
    authority, key, own = [(folder / name).read_bytes() for name in ("ca.crt", "tenant-acme.key", "tenant-acme.crt")]
    assert answer(port, grpc.ssl_channel_credentials(authority, key, own)) == "tenant-acme"


def test_without_a_certificate_nobody_gets_in(front):
    port, _, folder = front
    with pytest.raises(grpc.RpcError) as refusal:
        answer(port, grpc.ssl_channel_credentials((folder / "ca.crt").read_bytes()))
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
