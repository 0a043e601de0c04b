"""A controller's life: bind, stand by, lead, end."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from reasonserve.controller.auth import Tokens
from reasonserve.controller.core import Controller
from reasonserve.controller.leadership import Leadership
from reasonserve.controller.metrics import CountedStore, MetricsPage
from reasonserve.controller.server import SERVICES, build_server
from reasonserve.controller.store import Store
from reasonserve.controller.tls import TlsFiles, server_credentials
from reasonserve.controller.tokens import ensure_token
from reasonserve.errors import StartupError

_LOG = logging.getLogger(__name__)
_GRACE_S = 2.0
# Of a lease's time to live: how often a leader checks that it leads, and one that stands by tries to.
_CHECK_SHARE = 0.2
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class LeadershipLostError(Exception):
    """Another controller may lead from now on; this process has to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run; see the command's help."""

    host: str
    port: int
    database_url: str
    admin_token_file: Path
    operator_token_file: Path | None
    tls: TlsFiles
    lease_ttl_s: float
    capacity_slots: int
    metrics_port: int | None = None
    max_tenant_labels: int = 64

    @property
    def check_s(self) -> float:
        """Seconds between two looks at the leadership."""
        return self.lease_ttl_s * _CHECK_SHARE


async def serve(options: Options) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        StartupError: The database, a token file, a TLS file or the port cannot be used.
        LeadershipLostError: It led and may no longer.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tokens = read_tokens(options)
    credentials = server_credentials(options.tls)
    leadership = Leadership(options.database_url)
    controller = Controller(lease_ttl_s=options.lease_ttl_s, declared_slots=options.capacity_slots)
    server, health_servicer = build_server(controller, tokens)
    process = _Process(options, controller, leadership, health_servicer)
    try:
        port = _bind(server, options, credentials)
        await process.start(server)
        await _first(stop.wait(), process.run(port))
    finally:
        await process.end(server)


class _Process:
    """Stands by until it leads, then leads until it may no longer."""

    def __init__(
        self,
        options: Options,
        controller: Controller,
        leadership: Leadership,
        health_servicer: health.aio.HealthServicer,
    ) -> None:
        self._options = options
        self._controller = controller
        self._leadership = leadership
        self._health = health_servicer
        self._store: Store | None = None
        self._page: MetricsPage | None = None
        self._started = False

    async def start(self, server: grpc.aio.Server) -> None:
        """Starts to answer, with a refusal until it leads."""
        await self._set_health(_NOT_SERVING)
        await server.start()
        self._started = True
        if self._options.metrics_port is not None:
            self._page = MetricsPage(
                self._controller,
                host=self._options.host,
                port=self._options.metrics_port,
                max_tenants=self._options.max_tenant_labels,
            )

    async def run(self, port: int) -> None:
        """Runs until cancelled; `port` is what the server is bound to."""
        leads = await asyncio.to_thread(self._leadership.acquire)
        if not leads:
            _LOG.info("Listening on %s:%d and standing by: another controller leads.", self._options.host, port)
            await self._stand_by()
        self._store = await asyncio.to_thread(self._open_store)
        margin_s = 2 * self._options.check_s if self._leadership.contested else 0.0
        await self._controller.lead(self._store, margin_s=margin_s)
        # What was loaded stays: to look through it for garbage would halt renewals, for longer the more there is.
        gc.collect()
        gc.freeze()
        await self._set_health(_SERVING)
        state = self._controller.ledger.state
        where = f"Listening on {self._options.host}:{port}" if leads else "Leading"
        _LOG.info("%s with %d tenants at revision %d.", where, len(state.tenants), state.revision)
        await _first(self._controller.expire_forever(), self._keep_leading())

    async def end(self, server: grpc.aio.Server) -> None:
        """Ends the streams, then closes the database; whoever stands by may lead."""
        if self._started:
            _LOG.info("Shutting down.")
            await self._health.enter_graceful_shutdown()
            self._controller.close()
            await server.stop(_GRACE_S)
        if self._page is not None:
            await asyncio.to_thread(self._page.close)
        if self._store is not None:
            self._store.close()
        self._leadership.close()

    def _open_store(self) -> Store:
        url = self._options.database_url
        return CountedStore(url, self._page.recorder) if self._page is not None else Store(url)

    async def _stand_by(self) -> None:
        """Returns once it leads."""
        leads = False
        while not leads:
            await asyncio.sleep(self._options.check_s)
            try:
                leads = await asyncio.to_thread(self._leadership.acquire)
            except StartupError as error:
                _LOG.warning("Still standing by: %s", error.message)

    async def _keep_leading(self) -> None:
        """Raises once it may no longer lead; never where the leadership lasts as long as the process.

        There is nothing to ask then, and a thread that a starved machine does not run would look like a lost session.
        """
        if not self._leadership.contested:
            await asyncio.Event().wait()
        while True:
            await asyncio.sleep(self._options.check_s)
            # Not a timeout: after a stall of this process an answer that came in time would count as late.
            check = asyncio.create_task(asyncio.to_thread(self._leadership.held))
            await asyncio.wait([check], timeout=self._options.check_s)
            if not (check.done() and check.result()):
                raise LeadershipLostError

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", *SERVICES):
            await self._health.set(name, status)


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Runs until one of the coroutines ends, cancels the others and raises what it raised."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def read_tokens(options: Options) -> Tokens:
    """Reads the token files, and draws the tokens that are not there yet.

    Raises:
        StartupError: A file cannot be used, or both hold the same token.
    """
    admin = ensure_token(options.admin_token_file)
    operator = ensure_token(options.operator_token_file) if options.operator_token_file else ""
    if admin == operator:
        raise StartupError("The operator token is the admin token: name another --operator-token-file.")
    return Tokens(admin=admin, operator=operator)


def _bind(server: grpc.aio.Server, options: Options, credentials: grpc.ServerCredentials | None) -> int:
    address = f"{options.host}:{options.port}"
    try:
        return server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartupError(
            f"Cannot listen on {address}: the port is taken or the address is not this "
            "machine's; stop the other process or choose another --port or --host."
        ) from error
