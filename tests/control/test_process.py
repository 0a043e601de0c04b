"""The controller as a process: what it promised survives SIGKILL, and it starts and stops cleanly."""

import re
import signal
import subprocess
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from reasonserve.api.v1 import tenant_service_pb2 as pb


def test_an_acknowledged_write_survives_sigkill(start):
    budget = pb.RequestBudget(min_tokens=32, default_tokens=64, max_tokens=128)
    tenant = pb.Tenant(tenant_id="acme", limit_slots=100, request_budget=budget)
    first = start()
    created = first.call("CreateTenant", pb.CreateTenantRequest(tenant=tenant)).tenant
    key = first.call("CreateTenantKey", pb.CreateTenantKeyRequest(tenant_id="acme"))
    code, _ = first.end(signal.SIGKILL)
    assert code == -signal.SIGKILL
    second = start()
    resolved = second.call("ResolveTenantKey", pb.ResolveTenantKeyRequest(key=key.key))
    assert resolved.key_id == key.key_id
    assert (resolved.tenant.tenant_id, resolved.tenant.etag) == ("acme", created.etag)


def test_it_serves_health_and_ends_on_sigterm(start, tmp_path):
    process = start()
    with grpc.insecure_channel(f"127.0.0.1:{process.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "reasonserve.api.v1.LeaseService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    code, rest = process.end(signal.SIGTERM)
    assert code == 0
    log = "".join(process.lines) + rest
    assert (tmp_path / "admin.token").read_text().strip() not in log
    assert all(re.match(r"\d{4}-\d\d-\d\d ", line) for line in log.splitlines())


def test_a_taken_port_is_refused(start):
    first = start()
    second = start("--port", str(first.port))
    code, _ = second.end(signal.SIGTERM)
    assert code == 2
    assert "the port is taken" in second.lines[-1]


def test_a_token_file_that_others_may_read_is_refused(start, tmp_path):
    (tmp_path / "admin.token").write_text("token\n")
    (tmp_path / "admin.token").chmod(0o644)
    process = start()
    assert process.end(signal.SIGTERM)[0] == 2
    assert "chmod 600" in process.lines[-1]


def test_the_controller_loads_no_gpu_stack():
    program = (
        "import sys, reasonserve.controller.main as _; "
        "print(sorted({'torch', 'triton', 'ray', 'sglang'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
