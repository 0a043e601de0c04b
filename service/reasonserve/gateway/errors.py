"""From an exception to the status of a Ray Serve gRPC call; the one place where the gateway does it.

Ray Serve's context has no ``abort``: the status is set and the handler returns. Were the exception to leave the
handler, the client would get Ray's traceback and lose the trailing metadata.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import grpc

from reasonserve.errors import ReasonServeError
from reasonserve.status import grpc_code, to_rpc_status, trailing_metadata

DEADLINE_MESSAGE = "The call's deadline passed; allow more time or ask for fewer tokens."

logger = logging.getLogger(__name__)


class DeadlinePassedError(Exception):
    """The client's own deadline passed; the engine has been told to stop."""


class StatusContext(Protocol):
    """What of ``RayServegRPCContext`` a status needs."""

    def set_code(self, code: grpc.StatusCode) -> None:
        """Sets the status code."""

    def set_details(self, details: str) -> None:
        """Sets the message."""

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, bytes]]) -> None:
        """Sets the trailing metadata."""


@contextmanager
def reported(context: StatusContext) -> Iterator[None]:
    """Turns any exception of its body into the call's status.

    Cancellation passes: there is nobody to tell.
    """
    try:
        yield
    except DeadlinePassedError:
        context.set_code(grpc.StatusCode.DEADLINE_EXCEEDED)
        context.set_details(DEADLINE_MESSAGE)
    except Exception as error:
        if not isinstance(error, ReasonServeError):
            logger.exception("A request failed for a reason that nobody foresaw.")
        context.set_code(grpc_code(error))
        context.set_details(to_rpc_status(error).message)
        context.set_trailing_metadata(list(trailing_metadata(error)))  # Ray adds its own to a list
