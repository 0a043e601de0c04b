"""What became of each request, and whether that may be. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from reasonserve.bench.serve_soak.plan import Planned

End = Literal["finished", "cancelled", "client killed", "refused", "lost with its replica", "wrong"]
ENDS: tuple[End, ...] = ("finished", "cancelled", "client killed", "refused", "lost with its replica", "wrong")

KILLED, HUNG = "KILLED", "HUNG"
"""Codes beside gRPC's: the client was killed before it saw an end, and it saw none long after its deadline."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended, as its client saw it.

    Attributes:
        code: gRPC status, or one of those above.
        details: The server's words.
        messages: Messages with tokens that came.
        tokens: Tokens in them.
        sent_s: When it was sent, from the beginning of the load.
        ended_s: When it ended.
    """

    code: str
    details: str = ""
    messages: int = 0
    tokens: int = 0
    sent_s: float = 0.0
    ended_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Loss:
    """The death of the replica that was killed.

    Attributes:
        at_s: When, from the beginning of the load.
        survived: Traces of the requests that another replica handled to their end.
    """

    at_s: float
    survived: AbstractSet[str] = frozenset()


def judge(planned: Planned, outcome: Outcome, loss: Loss | None) -> tuple[End, str]:
    """Returns how a request ended, and what is wrong with that; empty where nothing is.

    A stream that had begun ends with UNAVAILABLE where its replica dies. Nothing else may: what has shown nothing is
    run again elsewhere.
    """
    code, done = outcome.code, outcome.tokens == planned.new_tokens
    if code == "OK":
        told = f"ended with {outcome.tokens} of {planned.new_tokens} tokens and status OK"
        return ("finished", "") if done else ("wrong", told)
    if outcome.tokens > planned.new_tokens:
        return "wrong", f"{outcome.tokens} tokens came, {planned.new_tokens} were asked for"
    if code == "CANCELLED" and planned.fate == "cancel":
        return "cancelled", ""
    if code == KILLED and planned.fate == "kill":
        return "client killed", ""
    if code == "RESOURCE_EXHAUSTED":
        return ("wrong", "refused after it had begun") if outcome.messages else ("refused", "")
    if code == "UNAVAILABLE" and loss is not None and _was_lost(planned, outcome, loss):
        return "lost with its replica", ""
    kind = "stream" if planned.is_streamed else "unary"
    span = f"from {outcome.sent_s:.1f} s to {outcome.ended_s:.1f} s, {outcome.messages} messages"
    return "wrong", f"{kind}, {code}: {outcome.details} ({span})"


def _was_lost(planned: Planned, outcome: Outcome, loss: Loss) -> bool:
    """Returns whether a request was a stream that had begun on the replica that died."""
    began = planned.is_streamed and outcome.messages > 0
    return began and outcome.sent_s < loss.at_s < outcome.ended_s and planned.trace_id not in loss.survived


@dataclass(frozen=True, slots=True)
class Account:
    """All requests.

    Attributes:
        ends: Requests by tenant and end.
        faults: What should not have happened, one line each.
        tokens: Tokens that clients got.
        seconds: From the sending to the end of each answer that its client waited for, in order.
        refused_s: The same of each refusal.
        late_s: How late each request was sent, in order.
    """

    ends: Mapping[str, Mapping[End, int]]
    faults: tuple[str, ...]
    tokens: int
    seconds: tuple[float, ...]
    refused_s: tuple[float, ...]
    late_s: tuple[float, ...]

    def total(self, end: End) -> int:
        """Returns the requests of all tenants that ended so."""
        return sum(ends.get(end, 0) for ends in self.ends.values())


def account(planned: Sequence[Planned], outcomes: Mapping[int, Outcome], loss: Loss | None) -> Account:
    """Judges every request; one without an outcome is a fault.

    Args:
        planned: All requests.
        outcomes: How they ended, by number.
        loss: The death of a replica, where one was killed.
    """
    ends: dict[str, Counter[End]] = {request.tenant: Counter() for request in planned}
    faults: list[str] = []
    seconds: list[float] = []
    refused_s: list[float] = []
    for request in planned:
        outcome = outcomes.get(request.number, Outcome(HUNG, "nobody knows how it ended"))
        end, fault = judge(request, outcome, loss)
        ends[request.tenant][end] += 1
        if end == "finished" and request.fate == "finish":
            seconds.append(outcome.ended_s - outcome.sent_s)
        if end == "refused":
            refused_s.append(outcome.ended_s - outcome.sent_s)
        if fault:
            faults.append(f"request {request.number} of {request.tenant} ({request.fate}): {fault}")
    return Account(
        ends={tenant: dict(counts) for tenant, counts in sorted(ends.items())},
        faults=tuple(faults),
        tokens=sum(outcome.tokens for outcome in outcomes.values()),
        seconds=tuple(seconds),
        refused_s=tuple(refused_s),
        late_s=tuple(outcomes[r.number].sent_s - r.at_s for r in planned if r.number in outcomes),
    )
