"""The controller's state machine: no I/O, no clock, no locks.

A durable transition is two calls: a planning method decides and returns a `Change` or raises,
and `apply` makes it true. Whoever drives the ledger stores the change in between, so memory
never runs ahead of the disk. Illegal transitions raise and change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reasonserve.controller import records
from reasonserve.controller.leases import LeaseBook, Replica
from reasonserve.controller.records import Change, Event, Key, Profile, Report, Snapshot, Tenant, TenantUse
from reasonserve.controller.shares import Shares
from reasonserve.controller.state import State
from reasonserve.controller.tenants import check_guarantees, check_tenant, merge, overcommit
from reasonserve.errors import AlreadyExistsError, NotFoundError, PreconditionError, StaleEtagError

KEPT_NS = 30 * 86_400 * 10**9
"""An expired key is listed this long, so that its tenant can be told why it is refused."""


class Ledger:
    """Tenants, keys, profiles and leases.

    Args:
        snapshot: The durable state to begin with.
        lease_ttl_s: A lease lapses this long after its last report.
        now: The caller's clock, in seconds.
        declared_slots: Capacity that guarantees are checked against; 0 means that of the live replicas.
        at_once: Split the memory with every transition; otherwise when the caller calls `settle`.
    """

    def __init__(
        self,
        snapshot: Snapshot | None = None,
        *,
        lease_ttl_s: float,
        now: float,
        declared_slots: int = 0,
        at_once: bool = True,
    ) -> None:
        self._state = State(snapshot or Snapshot())
        self._shares = Shares(self._state.tenants.values())
        self._touched: set[str] = set()
        self._at_once = at_once
        self._declared_slots = declared_slots
        self._book = LeaseBook(lease_ttl_s=lease_ttl_s, missing=frozenset(self._state.epochs), now=now)

    @property
    def state(self) -> State:
        """What survives a restart, to be read."""
        return self._state

    @property
    def leases(self) -> LeaseBook:
        """Leases of live replicas, to be read."""
        return self._book

    @property
    def declared_slots(self) -> int:
        """Capacity that the operator declared; 0 when none was."""
        return self._declared_slots

    @property
    def warning(self) -> str:
        """By how much the guarantees exceed the capacity, and what to do; empty when they fit."""
        return overcommit(self._state.guaranteed_slots, self._capacity_slots)

    def create_tenant(self, tenant: Tenant, *, allow_overcommit: bool = False) -> Change:
        """Plans a new tenant.

        Raises:
            InvalidRequestError: A field is out of range or contradicts another.
            AlreadyExistsError: The id is taken.
            PreconditionError: The guarantees would exceed the capacity, which was not allowed.
        """
        check_tenant(tenant)
        if tenant.tenant_id in self._state.tenants:
            raise AlreadyExistsError(
                f"Tenant {tenant.tenant_id} exists: update it or choose another id.", field="tenant.tenant_id"
            )
        if not allow_overcommit:
            check_guarantees(self._state.guaranteed_slots + tenant.guaranteed_slots, self._capacity_slots)
        return self._plan(records.TenantCreated(replace(tenant, revision=self._state.revision + 1)))

    def update_tenant(
        self, tenant: Tenant, *, mask: Sequence[str], etag: str, allow_overcommit: bool = False
    ) -> Change:
        """Plans new values for the masked fields; an empty etag overwrites whatever is there.

        Raises:
            NotFoundError: There is no such tenant.
            StaleEtagError: The etag is not the stored one.
            InvalidRequestError: As for `create_tenant`, or the mask is wrong.
            PreconditionError: A raised guarantee would exceed the capacity, which was not allowed.
        """
        stored = self._state.tenant(tenant.tenant_id)
        if etag and etag != stored.etag:
            raise StaleEtagError(
                f"Tenant {stored.tenant_id} changed since it was read (etag {etag[:80]!r}): read it again and retry.",
                field="tenant.etag",
            )
        merged = replace(merge(stored, tenant, mask), revision=self._state.revision + 1)
        check_tenant(merged)
        if merged.guaranteed_slots > stored.guaranteed_slots and not allow_overcommit:
            more = merged.guaranteed_slots - stored.guaranteed_slots
            check_guarantees(self._state.guaranteed_slots + more, self._capacity_slots)
        return self._plan(records.TenantUpdated(merged))

    def delete_tenant(self, tenant_id: str) -> Change:
        """Plans the end of a tenant and its keys.

        Raises:
            NotFoundError: There is no such tenant.
        """
        return self._plan(records.TenantGone(self._state.tenant(tenant_id).tenant_id))

    def add_key(self, key: Key, *, now_ns: int) -> Change:
        """Plans a new key, and the end of the tenant's keys that expired `KEPT_NS` ago; nanoseconds since the epoch.

        Raises:
            NotFoundError: There is no such tenant.
            AlreadyExistsError: The key id is taken.
        """
        self._state.tenant(key.tenant_id)
        if self._state.key(key.key_id):
            raise AlreadyExistsError(f"Key {key.key_id} exists: retry for another.")
        old = (kept for kept in self._state.keys_of(key.tenant_id) if kept.is_expired(now_ns - KEPT_NS))
        return self._plan(*(records.KeyGone(kept.key_id, kept.tenant_id) for kept in old), records.KeyPut(key))

    def revoke_key(self, tenant_id: str, key_id: str) -> Change:
        """Plans the end of a key.

        Raises:
            NotFoundError: There is no such tenant, or it has no such key.
        """
        self._state.tenant(tenant_id)
        key = self._state.key(key_id)
        if key is None or key.tenant_id != tenant_id:
            raise NotFoundError(f"Tenant {tenant_id} has no key {key_id[:80]!r}: get the tenant.", field="key_id")
        return self._plan(records.KeyGone(key_id, tenant_id))

    def put_profile(self, profile: Profile, content: bytes) -> Change:
        """Plans a new profile; content that is already stored changes nothing.

        Raises:
            AlreadyExistsError: Other content has the same id.
        """
        stored = self._state.profiles.get(profile.profile_id)
        if stored is None:
            return self._plan(records.ProfilePut(replace(profile, revision=self._state.revision + 1), content))
        if stored.sha256 != profile.sha256:
            raise AlreadyExistsError(
                f"Profile {profile.profile_id} exists with other content: its digest begins alike; "
                "change a byte of the file, such as its trailing newline.",
                field="content",
            )
        return Change(self._state.revision, ())

    def activate_profile(self, profile_id: str) -> Change:
        """Plans that a profile becomes its model's active one; changes nothing where it is.

        Raises:
            NotFoundError: There is no such profile.
        """
        profile = self._state.profile(profile_id)
        return (
            Change(self._state.revision, ())
            if self._state.is_active(profile)
            else self._plan(records.ProfileActive(profile))
        )

    def delete_profile(self, profile_id: str) -> Change:
        """Plans the end of a profile. Running requests keep what they began with.

        Raises:
            NotFoundError: There is no such profile.
            PreconditionError: It is the active one of its model.
        """
        profile = self._state.profile(profile_id)
        if self._state.is_active(profile):
            raise PreconditionError(
                f"Profile {profile_id} is the active one of model {profile.model_name[:80]!r}: activate another first.",
                field="profile_id",
            )
        return self._plan(records.ProfileGone(profile_id))

    def join_replicas(self, *replica_ids: str) -> Change:
        """Plans that replicas are leased anew; `open_lease` follows for each once the change is applied."""
        return self._plan(*map(records.ReplicaJoined, replica_ids)) if replica_ids else Change(self._state.revision, ())

    def expire(self, now: float) -> Change:
        """Plans the end of the replicas whose leases lapsed; changes nothing where there are none."""
        gone = tuple(records.ReplicaGone(replica_id) for replica_id in self._book.lapsed(now))
        return self._plan(*gone) if gone else Change(self._state.revision, ())

    def open_lease(self, report: Report, *, epoch: int, now: float, seq: int = 0) -> None:
        """Opens the lease of a replica that joined; its answers are numbered on from `seq`.

        Raises:
            StaleEtagError: A newer stream joined since.
        """
        if self._state.epochs.get(report.replica_id) != epoch:
            raise StaleEtagError(
                f"A newer stream leases replica {report.replica_id}; this one ends.", field="replica_id"
            )
        self._book.open(report, epoch=epoch, now=now, seq=seq)
        self._settle_at_once()

    def renew_lease(self, report: Report, *, epoch: int, now: float) -> None:
        """Takes a report and extends the lease.

        Raises:
            StaleEtagError: A newer stream holds the lease, or it lapsed.
            InvalidRequestError: An answer is confirmed that was never sent.
        """
        self._book.renew(report, epoch=epoch, now=now)
        self._settle_at_once()

    def tell_lease(self, replica_id: str) -> int:
        """Notes that a replica's leases are sent to it; returns the answer's number."""
        return self._book.tell(replica_id)

    def settle(self) -> frozenset[str]:
        """Splits the memory anew; returns the replicas that are to be told before their next renewal."""
        urgent = self._book.settle(self._shares, self._touched)
        self._touched = set()
        return urgent

    def close_lease(self, replica_id: str, *, epoch: int) -> None:
        """Notes that a stream ended; its leases stay until they lapse."""
        self._book.disconnect(replica_id, epoch=epoch)

    def apply(self, change: Change) -> None:
        """Makes a planned change true; the memory is to be split anew.

        Raises:
            StaleEtagError: The change was planned on another revision; nothing happens.
        """
        self._state.apply(change)
        for event in change.events:
            match event:
                case records.ReplicaGone(replica_id):
                    self._book.drop(replica_id)
                case records.TenantCreated(tenant) | records.TenantUpdated(tenant):
                    self._shares.put(tenant)
                    self._touch(tenant.tenant_id)
                case records.TenantGone(tenant_id):
                    self._shares.drop(tenant_id)
                    self._touch(tenant_id)
        self._settle_at_once()

    def check_integrity(self) -> None:
        """Asserts the invariants of the state and of the leases, recomputed from scratch."""
        self._state.check_integrity()
        for replica_id, replica in self._book.replicas.items():
            assert self._state.epochs[replica_id] >= replica.epoch, "a lease without its epoch"
            reserved = {t: use.reserved_slots for t, use in replica.report.tenants.items()}
            if replica.connected and not self._book.dirty:
                strangers = sum(slots for t, slots in reserved.items() if t not in self._state.tenants)
                taken = sum(replica.leases.values()) + strangers
                assert taken <= max(replica.report.capacity_slots, sum(reserved.values())), "a replica is overcommitted"
        for tenant_id, tenant in self._state.tenants.items() if not self._book.dirty else ():
            leased = sum(_granted(replica, tenant_id) for replica in self._book.replicas.values())
            immovable = sum(_immovable(replica, tenant_id) for replica in self._book.replicas.values())
            assert leased <= max(tenant.limit_slots, immovable), "a tenant is leased more than its limit"

    def _touch(self, tenant_id: str) -> None:
        self._touched.add(tenant_id)
        self._book.dirty = True

    def _settle_at_once(self) -> None:
        if self._at_once and self._book.dirty:
            self.settle()

    @property
    def _capacity_slots(self) -> int:
        return self._declared_slots or self._book.capacity_slots

    def _plan(self, *events: Event) -> Change:
        return Change(self._state.revision + 1, events)


def _granted(replica: Replica, tenant_id: str) -> int:
    """Returns the slots that a replica may take to be leased to a tenant, once it is told what it is leased."""
    return max(replica.leases.get(tenant_id, 0), replica.believed.get(tenant_id, 0))


def _immovable(replica: Replica, tenant_id: str) -> int:
    """Returns the slots that no split can take from a tenant at a replica."""
    reserved = replica.report.tenants.get(tenant_id, TenantUse()).reserved_slots if replica.connected else 0
    return max(reserved, replica.believed.get(tenant_id, 0))
