"""What is sent and when: Poisson arrivals of unlike requests of four tenants. Pure; the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb

Fate = Literal["finish", "cancel", "kill"]

PREFIXES, PREFIX_TOKENS = 6, 48
OWN_TOKENS = (4, 24)
NEW_TOKENS = (16, 160)
METHODS = ("r-kv", "r-kv", "uniform/adakv/snapkv", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How long and how hard.

    Attributes:
        minutes: Of load.
        replicas: Engines.
        pool_slots: KV pool of each.
        buffer_tokens: Tail slots of a request.
        clients: Requests at a time while the capacity is measured.
        capacity_s: How long it is measured.
        share: Load, as a share of it.
        cancels: Share of the requests that are cancelled.
        kills: Share of the requests whose client process is killed.
        replica_kill: When a replica is killed, as a share of the load's time.
        controller_kill: When the controller is killed, likewise.
        deadline_s: A request that has not ended by then hangs.
        settle_s: How long replicas may take to come back, and slots to come free, once the load has ended.
        sample_s: Between two looks at the memory of processes.
        warm_up_s: Memory of a process is not judged before.
        most_slope: Memory may grow by so many MiB an hour.
        seed: Of the whole plan.
    """

    minutes: float
    replicas: int = 2
    pool_slots: int = 2048
    buffer_tokens: int = 32
    clients: int = 16
    capacity_s: float = 60.0
    share: float = 0.7
    cancels: float = 0.15
    kills: float = 0.05
    replica_kill: float = 0.3
    controller_kill: float = 0.65
    deadline_s: float = 180.0
    settle_s: float = 600.0
    sample_s: float = 5.0
    warm_up_s: float = 300.0
    most_slope: float = 60.0
    seed: int = 1


FULL = Setup(minutes=30.0)
QUICK = Setup(minutes=3.0, capacity_s=15.0, sample_s=2.0, warm_up_s=45.0, most_slope=9000.0)
"""An engine still takes memory for its first batches then: only a leak of 150 MiB a minute is told from that."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One request.

    Attributes:
        number: Counts them.
        trace_id: Its trace, 32 hexadecimal digits.
        at_s: When it is sent, from the beginning of the load.
        tenant: Who sends it.
        prompt: Token ids.
        new_tokens: Tokens that are generated, no fewer.
        method: How its budget is spent.
        is_evictable: Whether the prompt competes for the budget.
        is_streamed: Whether it is a stream.
        fate: Whether its client waits for the end, cancels or is killed.
        moment: When the client leaves, as a share of the time that a request usually takes.
    """

    number: int
    trace_id: str
    at_s: float
    tenant: str
    prompt: tuple[int, ...]
    new_tokens: int
    method: str
    is_evictable: bool
    is_streamed: bool
    fate: Fate
    moment: float

    @property
    def span_id(self) -> str:
        """Its client's span, which nobody records."""
        return f"{self.trace_id[:15]}1"

    @property
    def traceparent(self) -> str:
        """The trace context that its client sends."""
        return f"00-{self.trace_id}-{self.span_id}-01"

    def message(self) -> pb.GenerateRequest:
        """Returns it as it is sent."""
        mode = pb.PROMPT_MODE_EVICTABLE if self.is_evictable else pb.PROMPT_MODE_PINNED
        return pb.GenerateRequest(
            tokens=pb.TokenInput(ids=self.prompt),
            sampling=pb.SamplingOptions(max_new_tokens=self.new_tokens, ignore_eos=True),
            kv=pb.KvOptions(method=self.method, prompt_mode=mode),
        )


def tenants(setup: Setup) -> tuple[tenant_pb.Tenant, ...]:
    """Returns the four tenants: two with guarantees, one that may use what is left, one that is held short."""
    pool = setup.replicas * setup.pool_slots

    def tenant(name: str, guaranteed: float, limit: float, weight: int, budget: int) -> tenant_pb.Tenant:
        return tenant_pb.Tenant(
            tenant_id=name,
            weight=weight,
            guaranteed_slots=int(pool * guaranteed),
            limit_slots=int(pool * limit),
            request_budget=tenant_pb.RequestBudget(min_tokens=32, default_tokens=budget, max_tokens=256),
        )

    return (
        tenant("gold", 0.25, 1.0, 4, 96),
        tenant("silver", 0.125, 0.5, 2, 64),
        tenant("bronze", 0.0, 1.0, 2, 48),
        tenant("free", 0.0, 0.25, 1, 32),
    )


def requests(setup: Setup, vocabulary: int, *, per_s: float | None) -> Iterator[Planned]:
    """Yields requests without end.

    Args:
        setup: How they are.
        vocabulary: Token ids lie below it.
        per_s: Arrivals a second, with exponential gaps, some of whose clients leave; None is for requests that
            measure the capacity: they are sent one after another and none is left.
    """
    random_ = random.Random(setup.seed if per_s is not None else setup.seed + 1)
    names = [tenant.tenant_id for tenant in tenants(setup)]

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(random_.randrange(4, vocabulary) for _ in range(count))

    prefixes = [tokens(PREFIX_TOKENS) for _ in range(PREFIXES)]
    at_s, number = 0.0, 0
    while True:
        at_s += random_.expovariate(per_s) if per_s is not None else 0.0
        method = random_.choice(METHODS)
        yield Planned(
            number=number,
            trace_id=f"{random_.getrandbits(128) or 1:032x}",
            at_s=at_s,
            tenant=random_.choice(names),
            prompt=random_.choice(prefixes) + tokens(random_.randint(*OWN_TOKENS)),
            new_tokens=random_.randint(*NEW_TOKENS),
            method=method,
            is_evictable=method != "full" and random_.random() < 0.3,
            is_streamed=random_.random() < 0.5,
            fate=_fate(setup, random_.random()) if per_s is not None else "finish",
            moment=random_.random(),
        )
        number += 1


def load(setup: Setup, vocabulary: int, *, capacity_per_s: float) -> list[Planned]:
    """Returns the load's requests, in the order in which they are sent."""
    planned: list[Planned] = []
    seconds = 60 * setup.minutes
    for request in requests(setup, vocabulary, per_s=setup.share * capacity_per_s):
        if request.at_s >= seconds:
            return planned
        planned.append(request)
    raise AssertionError("requests do not end")


def _fate(setup: Setup, chance: float) -> Fate:
    if chance < setup.cancels:
        return "cancel"
    return "kill" if chance < setup.cancels + setup.kills else "finish"
