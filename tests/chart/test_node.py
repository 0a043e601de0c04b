"""What runs in pods says why it cannot, in one line and without a traceback."""

import subprocess
import sys
from concurrent import futures
from contextlib import contextmanager

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from reasonserve.node.probe import serving

STATUS = health_pb2.HealthCheckResponse


def run(module, *args):
    command = [sys.executable, "-m", f"reasonserve.node.{module}", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@contextmanager
def health_server(status, credentials=None):
    servicer = health.HealthServicer()
    servicer.set("", status)
    server = grpc.server(futures.ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    yield f"localhost:{port}"
    server.stop(grace=None).wait()


@pytest.mark.parametrize(("status", "ready"), [(STATUS.SERVING, True), (STATUS.NOT_SERVING, False)])
def test_a_standby_is_not_ready(status, ready):
    with health_server(status) as endpoint:
        assert serving(endpoint) is ready


def test_nobody_is_not_ready():
    assert serving("127.0.0.1:1") is False


def test_a_controller_with_tls_is_asked_over_tls(certificates, monkeypatch):
    def read(name):
        return (certificates / name).read_bytes()

    credentials = grpc.ssl_server_credentials([(read("tls.key"), read("tls.crt"))], read("ca.crt"), True)
    with health_server(STATUS.SERVING, credentials) as endpoint:
        monkeypatch.setenv("REASONSERVE_CONTROLLER_TLS_CA_FILE", str(certificates / "ca.crt"))
        assert serving(endpoint) is False  # it asks for a certificate
        monkeypatch.setenv("REASONSERVE_CONTROLLER_TLS_CERT_FILE", str(certificates / "tenant-acme.crt"))
        monkeypatch.setenv("REASONSERVE_CONTROLLER_TLS_KEY_FILE", str(certificates / "tenant-acme.key"))
        assert serving(endpoint) is True


@pytest.mark.parametrize(
    ("module", "config", "said"),
    [
        ("prepare", "model: no-such-model", "'no-such-model' is no model. Allowed: a built-in name"),
        ("prepare", "modle: x", "The configuration is wrong: modle"),
        ("front", "model: x", "HAProxy refuses the front's configuration"),
    ],
)
def test_refusals(tmp_path, module, config, said):
    (tmp_path / "config.yaml").write_text(config)
    options = {
        "prepare": ("--controller=127.0.0.1:1", "--admin-token-file=token"),
        "front": ("--certificate=none.crt", "--client-ca=none.crt", "--grpc-server=127.0.0.1:1",
                  "--http-server=127.0.0.1:1", "--health-port=1"),
    }  # fmt: skip
    done = run(module, f"--config={tmp_path / 'config.yaml'}", *options[module])
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_charts_test_fails_with_the_reason(tmp_path):
    (tmp_path / "token").write_text("t")
    done = run("smoke", "--gateway=127.0.0.1:1", "--controller=127.0.0.1:1", f"--admin-token-file={tmp_path}/token")
    assert done.returncode == 1
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr
