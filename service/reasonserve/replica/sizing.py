"""How many slots a request may privately hold; pure arithmetic over budgets."""

from __future__ import annotations

from dataclasses import dataclass, replace

from reasonserve.errors import InvalidRequestError
from reasonserve.kv import KvRequest, Method, PromptModeName


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueLimits:
    """How requests of one tenant may wait for memory.

    Attributes:
        requests: Most that wait; 0 refuses at once.
        wait_s: Longest that one waits.
    """

    requests: int = 64
    wait_s: float = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TenantTerms:
    """What the controller granted a tenant at this replica.

    Attributes:
        tenant_id: The tenant.
        slots: Leased slots here.
        guaranteed_slots: Slots over the cluster that are always the tenant's.
        limit_slots: Most slots over the cluster.
        min_tokens: Smallest budget of one request.
        default_tokens: Budget of a request that names none.
        max_tokens: Largest budget of one request.
        weight: Share of contended memory relative to other tenants.
        queue: How its requests may wait here.
    """

    tenant_id: str
    slots: int
    guaranteed_slots: int
    limit_slots: int
    min_tokens: int
    default_tokens: int
    max_tokens: int
    weight: int = 1
    queue: QueueLimits = QueueLimits()


@dataclass(frozen=True, kw_only=True, slots=True)
class KvAsk:
    """What a request asks of its KV cache.

    Attributes:
        method: How the budget is spent.
        budget_tokens: The budget; None takes the tenant's default and lets admission shrink it.
        prompt_mode: What happens to the prompt.
    """

    method: Method = "reasonalloc"
    budget_tokens: int | None = None
    prompt_mode: PromptModeName = "pinned"


def reservation_slots(kv: KvRequest, *, prompt_tokens: int, max_new_tokens: int, outputs: int = 1) -> int:
    """Returns the most slots that a request can privately hold at once: ``outputs`` times those of one output.

    ==================  ====================================
    method ``full``     ``prompt + max_new``
    any other method    ``prompt + min(max_new, budget + buffer)``
    ==================  ====================================

    The whole prompt is counted: what the prefix cache will share is not known before the request runs. An
    evictable prompt is held until the first round, which is when the row is longest.
    """
    growth = max_new_tokens if kv.method == "full" else min(max_new_tokens, kv.budget_tokens + kv.buffer_tokens)
    return outputs * (prompt_tokens + growth)


def resolve_kv(ask: KvAsk, terms: TenantTerms, *, buffer_tokens: int) -> KvRequest:
    """Returns what a request asked for with the tenant's defaults filled in.

    Raises:
        InvalidRequestError: The budget lies outside the tenant's range.
    """
    if ask.method == "full":
        return KvRequest(method="full", budget_tokens=0, buffer_tokens=buffer_tokens, prompt_mode=ask.prompt_mode)
    budget = terms.default_tokens if ask.budget_tokens is None else ask.budget_tokens
    if not terms.min_tokens <= budget <= terms.max_tokens:
        raise InvalidRequestError(
            f"kv.budget_tokens is {budget}; this tenant's requests may ask for {terms.min_tokens} to "
            f"{terms.max_tokens} tokens. Ask for a budget in that range or leave it unset for {terms.default_tokens}.",
            field="kv.budget_tokens",
        )
    return KvRequest(method=ask.method, budget_tokens=budget, buffer_tokens=buffer_tokens, prompt_mode=ask.prompt_mode)


def shrink_to_fit(
    kv: KvRequest, *, free_slots: int, min_tokens: int, prompt_tokens: int, max_new_tokens: int, outputs: int = 1
) -> KvRequest:
    """Returns the request with the largest budget, from ``min_tokens`` up to its own, that fits the free slots.

    The smallest budget is returned where even that does not fit; ``full`` is returned as it is.
    """
    if kv.method == "full":
        return kv

    def fits(budget: int) -> bool:
        smaller = replace(kv, budget_tokens=budget)
        slots = reservation_slots(smaller, prompt_tokens=prompt_tokens, max_new_tokens=max_new_tokens, outputs=outputs)
        return slots <= free_slots

    if fits(kv.budget_tokens):
        return kv
    low, high = min_tokens, kv.budget_tokens  # a budget of `high` does not fit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return replace(kv, budget_tokens=low)
