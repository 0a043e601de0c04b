"""A real gRPC server around a real SQLite file; only the clocks are ours."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings

from reasonserve import controller_client
from reasonserve.api.v1 import lease_service_pb2 as lease_pb
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.controller.auth import Tokens
from reasonserve.controller.core import Controller
from reasonserve.controller.server import build_server
from reasonserve.controller.store import Store

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

TOKEN = "an-admin-token-of-this-test"
OPERATOR_TOKEN = "an-operator-token-of-this-test"
TTL_S = 10.0


@dataclass
class Clock:
    """Seconds, or nanoseconds of the day, that pass when a test says so."""

    now: float = 1000.0

    def __call__(self):
        return self.now


@dataclass
class Cluster:
    """A served controller and what a test needs to talk to it."""

    controller: Controller
    clock: Clock
    channel: grpc.aio.Channel
    stubs: controller_client.Stubs
    admin: tuple
    wall: Clock
    endpoint: str

    async def call(self, method, request):
        return await method(request, metadata=self.admin)

    async def add_tenant(self, tenant_id, **fields):
        values = {"limit_slots": 100, "weight": 1, **fields}
        budget = tenant_pb.RequestBudget(min_tokens=32, default_tokens=64, max_tokens=128)
        tenant = tenant_pb.Tenant(tenant_id=tenant_id, request_budget=budget, **values)
        response = await self.call(self.stubs.tenants.CreateTenant, tenant_pb.CreateTenantRequest(tenant=tenant))
        return response.tenant

    async def lease(self, replica_id, capacity_slots=100, **uses):
        """Opens a stream with a first report and returns it with the first answer."""
        stream = self.stubs.leases.Lease(metadata=self.admin)
        await stream.write(self.report(replica_id, capacity_slots, **uses))
        return stream, await stream.read()

    @staticmethod
    def report(replica_id, capacity_slots=100, **uses):
        """A report; uses are ``tenant=(reserved, wanted)``."""
        tenants = [
            lease_pb.TenantDemand(tenant_id=t, reserved_slots=reserved, wanted_slots=wanted)
            for t, (reserved, wanted) in uses.items()
        ]
        return lease_pb.LeaseRequest(replica_id=replica_id, capacity_slots=capacity_slots, tenants=tenants)


class Process:
    """A controller process; `lines` is what it logged until it listened."""

    def __init__(self, folder, *options, database_url=None):
        self._token_file = folder / "admin.token"
        database_url = database_url or f"sqlite:///{folder / 'controller.db'}"
        command = [sys.executable, "-m", "reasonserve.controller", "--port", "0"]
        command += ["--database-url", database_url, "--admin-token-file", str(self._token_file)]
        self._process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
        self.lines = []
        self.port = 0
        for line in self._process.stderr:
            self.lines.append(line)
            listening = re.search(r"Listening on \S+:(\d+) ", line)
            if listening:
                self.port = int(listening[1])
                break

    def end(self, number=None):
        """Sends a signal, or waits for an end of its own, and returns the exit status and the rest of the log."""
        if number is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)
        _, rest = self._process.communicate(timeout=60)
        return self._process.returncode, rest

    def call(self, method, request):
        """Makes one blocking call of TenantService."""
        admin = controller_client.admin_metadata(controller_client.read_admin_token(self._token_file))
        with controller_client.open_blocking_channel(f"127.0.0.1:{self.port}") as channel:
            return getattr(controller_client.stubs(channel).tenants, method)(request, metadata=admin, timeout=30)


@pytest.fixture
def start(tmp_path):
    """Starts controller processes and kills what is left of them."""
    started = []

    def start_one(*options, **keywords):
        started.append(Process(tmp_path, *options, **keywords))
        return started[-1]

    yield start_one
    for process in started:
        process.end(signal.SIGKILL)


class Postgres:
    """A PostgreSQL server of our own on a Unix socket; it refuses to run as root, so it runs as nobody then."""

    def __init__(self, binaries, folder):
        self._binaries, self._data = binaries, folder / "data"
        self._user = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
        self.url = f"postgresql://owner@/{{}}?host={folder}"
        if self._user:
            shutil.chown(folder, "nobody")
        self._run("initdb", "--no-sync", "-A", "trust", "-U", "owner", "-D", self._data)
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        self._run("pg_ctl", "-w", "-D", self._data, "-l", folder / "log", "-o", options, "start")

    def stop(self):
        self._run("pg_ctl", "-w", "-D", self._data, "-m", "immediate", "stop")

    def restart(self):
        """Ends every session at once, as a failing server would."""
        self._run("pg_ctl", "-w", "-D", self._data, "-l", self._data.parent / "log", "-m", "immediate", "restart")

    def new_database(self):
        """Creates an empty database and returns its URL."""
        name = f"t{uuid.uuid4().hex}"
        url = self.url.format("postgres").replace("postgresql:", "postgresql+psycopg:")
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return self.url.format(name)

    def _run(self, program, *arguments):
        command = [self._binaries / program, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120, **self._user)


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server, where the machine has its programs."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    programs = [*map(str, versions[-1:]), os.environ.get("PATH", "")]
    initdb = shutil.which("initdb", path=os.pathsep.join(programs))
    if initdb is None:
        pytest.skip("no PostgreSQL programs on this machine; install the package postgresql to run this")
    # Not pytest's own folder: that is closed to the user the server runs as.
    folder = Path(tempfile.mkdtemp(prefix="rs-pg-"))
    server = Postgres(Path(initdb).resolve().parent, folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def database_path(tmp_path):
    return tmp_path / "controller.db"


@pytest.fixture
def database_url(database_path):
    return f"sqlite:///{database_path}"


@pytest.fixture
async def cluster(database_url):
    clock, wall, store = Clock(), Clock(1_900_000_000 * 10**9), Store(database_url)
    controller = Controller(lease_ttl_s=TTL_S, clock=clock, wall_clock=wall)
    await controller.lead(store)
    server, _ = build_server(controller, Tokens(admin=TOKEN, operator=OPERATOR_TOKEN))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    endpoint = f"127.0.0.1:{port}"
    async with controller_client.open_channel(endpoint) as channel:
        stubs = controller_client.stubs(channel)
        yield Cluster(controller, clock, channel, stubs, controller_client.admin_metadata(TOKEN), wall, endpoint)
    controller.close()
    await server.stop(None)
    controller.ledger.check_integrity()
    store.close()
