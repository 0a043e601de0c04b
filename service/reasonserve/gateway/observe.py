"""One request seen from the gateway: its metrics and its line in the log, however it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from reasonserve.gateway.errors import DeadlinePassedError
from reasonserve.replica.messages import Delta, GenerateCall
from reasonserve.status import grpc_code
from reasonserve.telemetry import metrics
from reasonserve.telemetry.logs import fields
from reasonserve.telemetry.metric import LabelCap, Recorder
from reasonserve.telemetry.soon import soon

UNKNOWN_TENANT = "unknown"
"""The label of a request whose caller is not known."""

logger = logging.getLogger("reasonserve.request")


def outcome_of(error: BaseException | None, *, finished: bool) -> str:
    """Returns how a request ended: a gRPC status in lower case.

    Args:
        error: What ended it.
        finished: Whether the whole answer had been handed over by then.
    """
    if error is None or finished:
        return "ok"
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        return "cancelled"
    if isinstance(error, DeadlinePassedError):
        return "deadline_exceeded"
    return grpc_code(error).name.lower() if isinstance(error, Exception) else "internal"


@dataclass(kw_only=True, slots=True)
class RequestRecord:
    """What is known of a request so far. The service tells it; `Requests` reads it at the end."""

    protocol: str
    clock: Callable[[], float]
    gap: Callable[[float], None]
    started: float
    tenant_id: str = ""
    call: GenerateCall | None = None
    first_token_at: float | None = None
    output_tokens: int = 0
    last: Delta | None = None
    is_complete: bool = False  # all outputs have ended
    _last_at: float = 0.0

    def delta(self, delta: Delta) -> None:
        """Notes a piece of the answer."""
        self.last = delta
        tokens = len(delta.token_ids)
        if not tokens:
            return
        now = self.clock()
        if self.first_token_at is None:
            self.first_token_at = now
        else:
            self.gap((now - self._last_at) / tokens)
        self._last_at = now
        self.output_tokens += tokens


class Requests:
    """Records requests.

    Args:
        recorder: Where metrics go.
        max_tenants: Tenants that get a label of their own.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self, recorder: Recorder, *, max_tenants: int = 64, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._recorder = recorder
        self._tenants = LabelCap(max_tenants)
        self._clock = clock

    @contextmanager
    def request(self, protocol: str) -> Iterator[RequestRecord]:
        """Runs a request; what ends it passes through.

        Args:
            protocol: ``grpc`` or ``http``.
        """
        record = RequestRecord(
            protocol=protocol,
            clock=self._clock,
            gap=lambda seconds: self._recorder.observe(metrics.INTER_TOKEN_SECONDS, seconds, self._label(record)),
            started=self._clock(),
        )
        ended_by: BaseException | None = None
        try:
            yield record
        except BaseException as error:
            ended_by = error
            raise
        finally:
            self._end(record, outcome_of(ended_by, finished=record.is_complete), ended_by)

    def _label(self, record: RequestRecord) -> str:
        """Returns the tenant's label; a tenant is named once the controller vouched for it."""
        return self._tenants.of(record.tenant_id) or UNKNOWN_TENANT

    def _end(self, record: RequestRecord, outcome: str, error: BaseException | None) -> None:
        seconds = self._clock() - record.started
        tenant = self._label(record)
        method = record.call.kv.method if record.call else ""
        add, observe = self._recorder.add, self._recorder.observe
        add(metrics.REQUESTS, 1, tenant, outcome, method)
        observe(metrics.REQUEST_SECONDS, seconds, tenant)
        if record.first_token_at is not None:
            observe(metrics.TTFT_SECONDS, record.first_token_at - record.started, tenant)
        add(metrics.OUTPUT_TOKENS, record.output_tokens, tenant)
        if record.last is not None and (ending := record.last.ending) is not None:
            add(metrics.INPUT_TOKENS, ending.input_tokens, tenant)
            add(metrics.CACHED_TOKENS, ending.cached_tokens, tenant)
        soon(partial(logger.info, "request ended", extra=_line(record, outcome, seconds, error)))


def _line(record: RequestRecord, outcome: str, seconds: float, error: BaseException | None) -> dict[str, object]:
    """Returns the figures of a request's line; no text of prompt, answer, key or error."""
    ending = record.last.ending if record.last else None
    ttft = None if record.first_token_at is None else round(record.first_token_at - record.started, 6)
    return {
        **fields(
            request_id=record.call.request_id if record.call else None,
            tenant=record.tenant_id,
            protocol=record.protocol,
            outcome=outcome,
            error_type=type(error).__name__ if error is not None and outcome not in ("ok", "cancelled") else None,
            field=getattr(error, "field", None),
            method=record.call.kv.method if record.call else None,
            budget_tokens=ending.budget_tokens if ending else None,
            seconds=round(seconds, 6),
            ttft_s=ttft,
            input_tokens=ending.input_tokens if ending else None,
            cached_tokens=ending.cached_tokens if ending else None,
            output_tokens=record.output_tokens,
            rounds=record.last.rounds if record.last else None,
            finish_reason=ending.finish_reason if ending else None,
        )
    }
