"""From memory to slots, from slots to requests, from requests to replicas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from reasonserve.errors import StartupError
from reasonserve.kv import DEFAULT_BUFFER_TOKENS, MIN_BUDGET_TOKENS, KvRequest
from reasonserve.plan.models import DTYPE_BYTES, ModelShape
from reasonserve.replica.sizing import reservation_slots

MIB = 1 << 20

GPU_MIB: Mapping[str, int] = MappingProxyType(
    {"l4": 23034, "a10g": 23028, "l40s": 46068, "a100-80g": 81920, "h100": 81559, "h200": 143771, "b200": 183359}
)
"""Memory of one GPU in MiB, as ``nvidia-smi`` reports it."""
DEFAULT_MEMORY_FRACTION = 0.85
"""Share for weights and KV pool; the rest is for activations, CUDA graphs and the context. SGLang chooses near it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """What is to be served.

    Attributes:
        prompt_tokens: Tokens of a prompt.
        output_tokens: Most tokens of an answer.
        budget_tokens: KV budget of a request.
        buffer_tokens: Most tail slots between two rounds.
        requests: Requests at a time.
    """

    prompt_tokens: int
    output_tokens: int
    budget_tokens: int
    buffer_tokens: int = DEFAULT_BUFFER_TOKENS
    requests: int

    def __post_init__(self) -> None:
        """Checks the figures.

        Raises:
            StartupError: One cannot be served.
        """
        if self.budget_tokens < MIN_BUDGET_TOKENS:
            raise StartupError(
                f"The budget is {self.budget_tokens}; the smallest is {MIN_BUDGET_TOKENS} tokens. Raise --budget."
            )
        if min(self.prompt_tokens, self.output_tokens, self.requests) < 1:
            raise StartupError("Prompt, output and requests are at least 1; --context must exceed --prompt.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How many requests fit into one GPU, and how many GPUs a number of requests takes.

    Attributes:
        model: The model's name.
        gpu: The GPU's name.
        budget_tokens: KV budget of a request.
        weight_bytes: Weights.
        bytes_per_slot: K and V of one token.
        pool_slots: Token slots beside the weights.
        full_slots: What a request holds without a budget.
        bounded_slots: What it holds with one.
        full_requests: Requests at a time without budgets.
        bounded_requests: Requests at a time with budgets; 0 where not one fits beside the weights.
        full_replicas: Replicas that the demand takes without budgets; 0 where one request does not fit.
        bounded_replicas: Replicas that it takes with budgets.
    """

    model: str
    gpu: str
    budget_tokens: int
    weight_bytes: int
    bytes_per_slot: int
    pool_slots: int
    full_slots: int
    bounded_slots: int
    full_requests: int
    bounded_requests: int
    full_replicas: int
    bounded_replicas: int


def gpu_bytes(gpu: str) -> int:
    """Returns the memory of a GPU: a known name, or a number of GiB.

    Raises:
        StartupError: It is neither.
    """
    if (mib := GPU_MIB.get(gpu.lower())) is not None:
        return mib * MIB
    try:
        size = float(gpu)
    except ValueError:
        size = 0.0
    if not 0 < size < 10_000:
        raise StartupError(f"{gpu!r} is no GPU. Allowed: {', '.join(GPU_MIB)}, or a memory size in GiB such as 80.")
    return int(size * (1 << 30))


def plan(
    shape: ModelShape, gpu: str, demand: Demand, *, dtype: str = "bfloat16", fraction: float = DEFAULT_MEMORY_FRACTION
) -> Plan:
    """Sizes one replica on one GPU.

    Args:
        shape: The model.
        gpu: A GPU's name, or its memory in GiB.
        demand: What is to be served.
        dtype: Element type of weights and cache.
        fraction: Share of the memory for weights and pool.

    Raises:
        StartupError: A figure is out of range.
    """
    if dtype not in DTYPE_BYTES:
        raise StartupError(f"{dtype!r} is no element type. Allowed: {', '.join(DTYPE_BYTES)}.")
    if not 0 < fraction < 1:
        raise StartupError(f"The memory fraction is {fraction}; it lies between 0 and 1. 0.85 is usual.")
    weights, per_slot = shape.weight_bytes(dtype), shape.bytes_per_slot(dtype)
    pool_slots = max(0, (int(gpu_bytes(gpu) * fraction) - weights) // per_slot)
    full, bounded = (_footprint(demand, bounded) for bounded in (False, True))
    full_requests, bounded_requests = pool_slots // full, pool_slots // bounded
    return Plan(
        model=shape.name,
        gpu=gpu,
        budget_tokens=demand.budget_tokens,
        weight_bytes=weights,
        bytes_per_slot=per_slot,
        pool_slots=pool_slots,
        full_slots=full,
        bounded_slots=bounded,
        full_requests=full_requests,
        bounded_requests=bounded_requests,
        full_replicas=_replicas(demand.requests, full_requests),
        bounded_replicas=_replicas(demand.requests, bounded_requests),
    )


def _footprint(demand: Demand, bounded: bool) -> int:
    """Returns what admission reserves for a request: the very function of the replica."""
    kv = KvRequest(
        method="reasonalloc" if bounded else "full",
        budget_tokens=demand.budget_tokens if bounded else 0,
        buffer_tokens=demand.buffer_tokens,
    )
    return reservation_slots(kv, prompt_tokens=demand.prompt_tokens, max_new_tokens=demand.output_tokens)


def _replicas(requests: int, each: int) -> int:
    return -(-requests // each) if each else 0
