"""A request as admission sees it: what it asks for, what it would hold, what it was granted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reasonserve.errors import InvalidRequestError
from reasonserve.kv import KvRequest
from reasonserve.replica.book import Reservation
from reasonserve.replica.prefixes import BLOCK_TOKENS, HeldBlocks, token_blocks
from reasonserve.replica.sizing import KvAsk, TenantTerms, resolve_kv


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A request at the door.

    Attributes:
        request_id: Unique over the replica.
        tenant_id: Who pays.
        ask: What it asks of its KV cache.
        prompt_ids: Its prompt.
        max_new_tokens: Most tokens that it generates.
        outputs: Outputs that it generates side by side.
        patience_s: How long its client waits; None is as long as it takes.
    """

    request_id: str
    tenant_id: str
    ask: KvAsk
    prompt_ids: Sequence[int]
    max_new_tokens: int
    outputs: int = 1
    patience_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """An admission.

    Attributes:
        kv: The request with its budget fixed.
        wished_tokens: The budget that it would have got with room enough.
        slots: Slots reserved for it; a prompt block that others hold too is not counted.
        queued_s: Seconds that it waited.
        is_guaranteed: Whether its tenant holds no more than its home share with it: then the engine starts it first.
    """

    kv: KvRequest
    wished_tokens: int
    slots: int
    queued_s: float
    is_guaranteed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A request that waits, sized.

    Attributes:
        entry: The request.
        kv: What it asks for, defaults filled in.
        blocks: Names of the prompt blocks that it may share: none where the prompt is evictable.
        prompt_slots: Slots of the prompt that it does not share.
        entered_at: When it came, in seconds.
    """

    entry: Entry
    kv: KvRequest
    blocks: tuple[bytes, ...]
    prompt_slots: int
    entered_at: float

    @classmethod
    def of(cls, entry: Entry, terms: TenantTerms, *, buffer_tokens: int, now: float) -> Candidate:
        """Sizes a request.

        Raises:
            InvalidRequestError: The budget lies outside the tenant's range.
        """
        kv = resolve_kv(entry.ask, terms, buffer_tokens=buffer_tokens)
        blocks = () if _is_evictable(kv) else token_blocks(entry.prompt_ids, salt=entry.tenant_id)
        rest = len(entry.prompt_ids) - BLOCK_TOKENS * len(blocks)
        return cls(entry=entry, kv=kv, blocks=blocks, prompt_slots=entry.outputs * rest, entered_at=now)

    def least_tokens(self, terms: TenantTerms) -> int:
        """Returns the smallest budget that it may be admitted with: its own where the client named it."""
        return self.kv.budget_tokens if self.is_fixed else min(self.kv.budget_tokens, terms.min_tokens)

    @property
    def is_fixed(self) -> bool:
        """Whether its budget must not be shrunk."""
        return self.kv.method == "full" or self.entry.ask.budget_tokens is not None

    def slots(self, budget: int, held: HeldBlocks) -> int:
        """Returns the slots that its admission takes under a budget, when its tenant holds some blocks already."""
        return self.reservation(budget, floor=0, now=0.0).slots + BLOCK_TOKENS * held.missing(self.blocks)

    def largest_tokens(self, least: int, room: int, held: HeldBlocks) -> int:
        """Returns the largest budget up to the one it asks for with which it takes no more than some room.

        Args:
            least: A budget with which it fits.
            room: The room, in slots.
            held: Blocks that its tenant holds already.
        """
        low, high = least, self.kv.budget_tokens + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.slots(middle, held) <= room else (low, middle)
        return low

    def most_slots(self, budget: int) -> int:
        """Returns the slots that its admission takes when nothing is shared."""
        return self.slots(budget, HeldBlocks())

    def refuse_what_never_fits(self, terms: TenantTerms, pool_slots: int) -> None:
        """Refuses what an idle replica could not admit either.

        Raises:
            InvalidRequestError: It needs more than the tenant or the pool ever has.
        """
        slots = self.most_slots(self.least_tokens(terms))
        if slots > min(terms.limit_slots, pool_slots):
            raise InvalidRequestError(
                f"The request needs {slots} KV slots; the tenant's limit is {terms.limit_slots} and a replica has "
                f"{pool_slots}. Shorten the prompt, or lower sampling.max_new_tokens or kv.budget_tokens.",
                field="sampling.max_new_tokens",
            )

    def reservation(self, budget: int, *, floor: int, now: float) -> Reservation:
        """Returns its entry in the book."""
        return Reservation(
            request_id=self.entry.request_id,
            tenant_id=self.entry.tenant_id,
            prompt_slots=self.prompt_slots,
            blocks=self.blocks,
            budget=budget,
            ceiling=budget,
            floor=floor,
            buffer=self.kv.buffer_tokens,
            max_new_tokens=self.entry.max_new_tokens,
            outputs=self.entry.outputs,
            is_evictable=_is_evictable(self.kv),
            is_named=self.entry.ask.budget_tokens is not None,
            admitted_at=now,
            updated_at=now,
        )

    def grant(self, budget: int, *, slots: int, is_guaranteed: bool, now: float) -> Grant:
        """Returns its admission."""
        return Grant(
            kv=replace(self.kv, budget_tokens=budget),
            wished_tokens=self.kv.budget_tokens,
            slots=slots,
            queued_s=now - self.entered_at,
            is_guaranteed=is_guaranteed,
        )


def _is_evictable(kv: KvRequest) -> bool:
    """Returns whether the engine lets a prompt go at the first round: never where there are no rounds."""
    return kv.method != "full" and kv.prompt_mode == "evictable"
