"""What tenants ask for and get at one replica: sizes, refusals, releases. Remembers and forgets; decides nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, log2

from reasonserve.replica.book import Account, Book
from reasonserve.replica.retry import ReleaseRate, retry_after_s

_RECENT = 32
_MOST_EXPECTED = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class TenantUse:
    """A tenant's use and demand here.

    Attributes:
        tenant_id: The tenant.
        reserved_slots: Slots reserved by admitted requests.
        wanted_slots: Slots that waiting requests would hold unshrunk, and refused ones that are expected back.
        active_requests: Requests admitted and not finished.
        refused_requests: Requests refused for want of slots so far.
        queued_requests: Requests that wait.
        squeezed_slots: Slots that were taken from running requests and not given back.
    """

    tenant_id: str
    reserved_slots: int = 0
    wanted_slots: int = 0
    active_requests: int = 0
    refused_requests: int = 0
    queued_requests: int = 0
    squeezed_slots: int = 0


@dataclass(slots=True)
class _Tenant:
    recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_RECENT))  # (when, slots)
    burst: tuple[float, int] = (0.0, 0)  # (window, slots) of the largest burst; window 0 where it is to be found anew
    refused: int = 0
    # (expected back until, slots); bounded, for who comes back sooner than told is refused again and again
    expected: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_MOST_EXPECTED))
    released: ReleaseRate | None = None


class Demand:
    """Demand by tenant.

    Args:
        now: Start of observation, in seconds.
    """

    def __init__(self, *, now: float) -> None:
        self._tenants: dict[str, _Tenant] = {}
        self._released = ReleaseRate(now=now)
        self._since = now

    def asked(self, tenant_id: str, slots: int, *, now: float) -> None:
        """Notes what a request would hold unshrunk."""
        tenant = self._of(tenant_id)
        tenant.recent.append((now, slots))
        tenant.burst = (0.0, 0)

    def burst_slots(self, tenant_id: str, default: int, *, window_s: float) -> int:
        """Returns what the largest of a tenant's latest bursts asked for, or a default before its first request.

        Args:
            tenant_id: The tenant.
            default: The default.
            window_s: Requests that came within so long of each other are a burst; above 0. It is rounded up to a
                power of two, so that a burst need not be found again whenever the engine's speed varies.
        """
        tenant = self._tenants.get(tenant_id)
        if tenant is None or not tenant.recent:
            return default
        window_s = 2.0 ** ceil(log2(window_s))
        if tenant.burst[0] != window_s:
            tenant.burst = (window_s, _largest_burst(tenant.recent, window_s))
        return tenant.burst[1]

    def largest_slots(self, tenant_id: str) -> int:
        """Returns the largest of the sizes that a tenant lately asked for; 0 before its first request."""
        tenant = self._tenants.get(tenant_id)
        return max((slots for _, slots in tenant.recent), default=0) if tenant else 0

    def refused(self, tenant_id: str, slots: int, *, until: float) -> None:
        """Notes a refusal; it counts as demand until the client is due again."""
        tenant = self._of(tenant_id)
        tenant.refused += 1
        tenant.expected.append((until, slots))

    def released(self, tenant_id: str, slots: int, *, now: float) -> None:
        """Notes slots that came free."""
        tenant = self._of(tenant_id)
        tenant.released = tenant.released or ReleaseRate(now=self._since)
        tenant.released.note(slots, now=now)
        self._released.note(slots, now=now)

    def wait_s(self, shortfall: int, tenant_id: str | None, book: Book, *, now: float, unknown_s: float) -> float:
        """Returns when releases, of one tenant or of all for None, will have freed a shortfall; see ``retry``.

        Args:
            shortfall: Slots that lack; none where it is not above 0.
            tenant_id: Whose releases count.
            book: What runs.
            now: The time.
            unknown_s: The answer where slots lack and nothing is known.
        """
        return retry_after_s(
            max(0, shortfall),
            slots_per_s=self.slots_per_s(tenant_id, now=now),
            releases=[r.release() for r in book.reservations() if tenant_id in (None, r.tenant_id)],
            unknown_s=unknown_s if shortfall > 0 else 0.0,
        )

    def slots_per_s(self, tenant_id: str | None, *, now: float) -> float:
        """Returns the release rate of one tenant, or of all for None."""
        if tenant_id is None:
            return self._released.slots_per_s(now=now)
        tenant = self._tenants.get(tenant_id)
        return tenant.released.slots_per_s(now=now) if tenant and tenant.released else 0.0

    def use(
        self, book: Book, queued: Mapping[str, Sequence[int]], limits: Callable[[str], int], *, now: float
    ) -> tuple[TenantUse, ...]:
        """Returns every tenant's use and demand, by tenant id.

        Args:
            book: What is reserved.
            queued: Unshrunk sizes of the waiting requests, by tenant id.
            limits: Returns a tenant's limit: more than that it cannot want.
            now: The time; demand that did not come back until then is forgotten.
        """
        for tenant in self._tenants.values():
            kept = [(until, slots) for until, slots in tenant.expected if now < until]
            if len(kept) < len(tenant.expected):
                tenant.expected = deque(kept, maxlen=_MOST_EXPECTED)
        return tuple(
            self._use(
                tenant_id, book.accounts.get(tenant_id) or Account(), queued.get(tenant_id, ()), limits(tenant_id)
            )
            for tenant_id in sorted(self._tenants)
        )

    def _use(self, tenant_id: str, account: Account, queued: Sequence[int], limit: int) -> TenantUse:
        tenant = self._tenants[tenant_id]
        wanted = sum(queued) + sum(slots for _, slots in tenant.expected)
        return TenantUse(
            tenant_id=tenant_id,
            reserved_slots=account.reserved,
            wanted_slots=min(wanted, max(0, limit - account.reserved)),
            active_requests=len(account.requests),
            refused_requests=tenant.refused,
            queued_requests=len(queued),
            squeezed_slots=account.squeezed,
        )

    def _of(self, tenant_id: str) -> _Tenant:
        return self._tenants.setdefault(tenant_id, _Tenant())


def _largest_burst(requests: Iterable[tuple[float, int]], window_s: float) -> int:
    """Returns the most slots that requests, as (when, slots) in order, asked for within a window."""
    window: deque[tuple[float, int]] = deque()
    held = most = 0
    for when, slots in requests:
        window.append((when, slots))
        held += slots
        while window[0][0] < when - window_s:
            held -= window.popleft()[1]
        most = max(most, held)
    return most
