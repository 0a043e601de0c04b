"""One streamed request, measured at the client."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.cli.client import Gateway
from reasonserve.errors import UnavailableError


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """A stream so far.

    Attributes:
        text: All text so far.
        output_tokens: Tokens so far.
        held_slots: Private slots held now.
        rounds: Rounds so far.
    """

    text: str
    output_tokens: int
    held_slots: int
    rounds: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A finished request.

    Attributes:
        budget_tokens: Budget in force; 0 without compression.
        output_tokens: Tokens generated.
        peak_slots: Most private slots held at once.
        rounds: Compression rounds.
        kept_cells: Cells kept, over all rounds.
        evicted_cells: Cells evicted, over all rounds.
        first_token_s: From sending the request to its first tokens, in seconds.
        tokens_per_s: Tokens after the first message over the time they took.
    """

    budget_tokens: int
    output_tokens: int
    peak_slots: int
    rounds: int
    kept_cells: int
    evicted_cells: int
    first_token_s: float
    tokens_per_s: float


def measure(gateway: Gateway, request: pb.GenerateRequest, watch: Callable[[Progress], None]) -> Run:
    """Streams a request, tells each step and returns what it took.

    Raises:
        ReasonServeError: The call failed or ended without its report.
    """
    began = time.perf_counter()
    first_s, first_tokens, output_tokens, text = 0.0, 0, 0, ""
    last = pb.GenerateResponse()
    for last in gateway.stream(request):
        text += last.text
        output_tokens += len(last.token_ids)
        if not first_tokens and output_tokens:
            first_s, first_tokens = time.perf_counter() - began, output_tokens
        progress = last.progress
        watch(Progress(text=text, output_tokens=output_tokens, held_slots=progress.held_slots, rounds=progress.rounds))
    if not last.HasField("kv") or not last.HasField("usage"):
        raise UnavailableError("The stream ended without its KV report.")
    decode_s = time.perf_counter() - began - first_s
    return Run(
        budget_tokens=last.kv.budget_tokens,
        output_tokens=last.usage.output_tokens,
        peak_slots=last.kv.peak_slots,
        rounds=last.kv.rounds,
        kept_cells=last.kv.kept_cells,
        evicted_cells=last.kv.evicted_cells,
        first_token_s=first_s,
        tokens_per_s=(output_tokens - first_tokens) / decode_s,
    )
