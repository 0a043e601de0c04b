"""What the running requests of a replica hold: reservations, and their sums by tenant.

Keeps count and nothing else; who may reserve is decided in ``admission``. A tenant's reservation is what its
requests may privately hold, plus each block of a shared prompt once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from reasonserve.replica.prefixes import BLOCK_TOKENS, HeldBlocks
from reasonserve.replica.retry import Release
from reasonserve.replica.squeeze import Bounded


@dataclass(kw_only=True, slots=True)
class Reservation:
    """One running request.

    Attributes:
        request_id: The request.
        tenant_id: On whose account.
        prompt_slots: Slots of the prompt that it does not share.
        blocks: Names of the prompt blocks that it may share.
        budget: S now; 0 for an unbounded request.
        ceiling: S that it was admitted with.
        floor: Least S that it may be squeezed to.
        buffer: Tail slots on top.
        max_new_tokens: Most tokens that it generates.
        outputs: Outputs that it generates side by side.
        is_evictable: Whether the engine lets the prompt go at the first round.
        is_named: Whether the client named the budget: then only a guarantee or a smaller lease takes from it.
        admitted_at: When, in seconds.
        updated_at: When ``output_tokens`` was noted.
        output_tokens: Tokens generated so far.
    """

    request_id: str
    tenant_id: str
    prompt_slots: int
    blocks: tuple[bytes, ...]
    budget: int
    ceiling: int
    floor: int
    buffer: int
    max_new_tokens: int
    outputs: int
    is_evictable: bool
    is_named: bool
    admitted_at: float
    updated_at: float
    output_tokens: int = 0

    @property
    def is_bounded(self) -> bool:
        """Whether it has a budget that can be lowered."""
        return self.ceiling > 0

    @property
    def slots(self) -> int:
        """Private slots reserved."""
        return self.prompt_slots + self._growth(self.budget)

    @property
    def firm_slots(self) -> int:
        """Private slots that it keeps when it is squeezed as far as it can be."""
        return self.prompt_slots + self._growth(min(self.budget, self.floor))

    @property
    def squeezed_slots(self) -> int:
        """Private slots that were taken from it."""
        return self._growth(self.ceiling) - self._growth(self.budget)

    def bounded(self) -> Bounded:
        """Returns it as a candidate for squeezing and growing."""
        return Bounded(
            request_id=self.request_id,
            budget=self.budget,
            floor=min(self.budget, self.floor),
            ceiling=self.ceiling,
            buffer=self.buffer,
            max_new_tokens=self.max_new_tokens,
            outputs=self.outputs,
        )

    def release(self) -> Release:
        """Returns when it is expected to end, at the latest."""
        seconds = self.updated_at - self.admitted_at
        rate = self.output_tokens / seconds if self.output_tokens and seconds > 0 else None
        return Release(slots=self.slots, remaining_tokens=self.max_new_tokens - self.output_tokens, tokens_per_s=rate)

    def _growth(self, budget: int) -> int:
        longest = min(self.max_new_tokens, budget + self.buffer) if self.is_bounded else self.max_new_tokens
        return self.outputs * longest


@dataclass(slots=True)
class Account:
    """A tenant's sums, in slots.

    Attributes:
        requests: Its running requests by id.
        blocks: Its prompt blocks.
        reserved: What they hold.
        firm: What they keep when they are squeezed as far as they can be.
        squeezed: What was taken from them.
    """

    requests: dict[str, Reservation] = field(default_factory=dict)
    blocks: HeldBlocks = field(default_factory=HeldBlocks)
    reserved: int = 0
    firm: int = 0
    squeezed: int = 0


class Book:
    """The reservations of one replica.

    Attributes:
        total: Slots reserved in all.
        version: Grows with every change, so that sums over all tenants need not be taken twice.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._tenants: dict[str, str] = {}
        self.total = 0
        self.version = 0

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._tenants

    @property
    def accounts(self) -> Mapping[str, Account]:
        """Accounts by tenant id, of every tenant that ever held something; not to be changed."""
        return self._accounts

    def account(self, tenant_id: str) -> Account:
        """Returns a tenant's account."""
        return self._accounts.setdefault(tenant_id, Account())

    def get(self, request_id: str) -> Reservation | None:
        """Returns a running request, or None."""
        tenant_id = self._tenants.get(request_id)
        return None if tenant_id is None else self._accounts[tenant_id].requests[request_id]

    def reservations(self) -> Iterator[Reservation]:
        """Yields every running request."""
        for account in self._accounts.values():
            yield from account.requests.values()

    def add(self, reservation: Reservation) -> None:
        """Enters a request; its id must hold nothing yet."""
        assert reservation.request_id not in self._tenants
        account = self.account(reservation.tenant_id)
        account.requests[reservation.request_id] = reservation
        self._tenants[reservation.request_id] = reservation.tenant_id
        shared = BLOCK_TOKENS * account.blocks.hold(reservation.blocks)
        self._move(account, reservation.slots + shared, reservation.firm_slots + shared, reservation.squeezed_slots)

    def remove(self, request_id: str) -> int:
        """Strikes a request out; returns the slots that come free, 0 when it holds none (any more)."""
        tenant_id = self._tenants.pop(request_id, None)
        if tenant_id is None:
            return 0
        account = self._accounts[tenant_id]
        reservation = account.requests.pop(request_id)
        shared = BLOCK_TOKENS * account.blocks.drop(reservation.blocks)
        self._move(account, -reservation.slots - shared, -reservation.firm_slots - shared, -reservation.squeezed_slots)
        return reservation.slots + shared

    def set_budget(self, request_id: str, budget: int) -> None:
        """Moves a running request's budget."""
        self._change(request_id, budget=budget)

    def forget_prompt(self, request_id: str) -> None:
        """Gives the private part of a prompt back that the engine no longer holds."""
        self._change(request_id, prompt_slots=0)

    def check_integrity(self) -> None:
        """Recomputes every sum from the requests.

        Raises:
            AssertionError: A sum is wrong.
        """
        for account in self._accounts.values():
            held = HeldBlocks()
            shared = BLOCK_TOKENS * sum(held.hold(r.blocks) for r in account.requests.values())
            assert len(held) == len(account.blocks)
            assert account.reserved == shared + sum(r.slots for r in account.requests.values())
            assert account.firm == shared + sum(r.firm_slots for r in account.requests.values())
            assert account.firm <= account.reserved
            assert account.squeezed == sum(r.squeezed_slots for r in account.requests.values())
        assert self.total == sum(account.reserved for account in self._accounts.values())
        assert self._tenants == {r.request_id: r.tenant_id for r in self.reservations()}

    def _change(self, request_id: str, **fields: int) -> None:
        account = self._accounts[self._tenants[request_id]]
        reservation = account.requests[request_id]
        slots, firm, squeezed = reservation.slots, reservation.firm_slots, reservation.squeezed_slots
        for name, value in fields.items():
            setattr(reservation, name, value)
        now = (reservation.slots - slots, reservation.firm_slots - firm, reservation.squeezed_slots - squeezed)
        self._move(account, *now)

    def _move(self, account: Account, reserved: int, firm: int, squeezed: int) -> None:
        account.reserved += reserved
        account.firm += firm
        account.squeezed += squeezed
        self.total += reserved
        self.version += 1
