"""What the ledger keeps, and the changes that move it from one revision to the next. All immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBudget:
    """Range of KV budgets a request may ask for, in tokens per layer and kv head."""

    min_tokens: int
    default_tokens: int
    max_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How a tenant's requests may wait at a replica; what is 0 is the replica's configured limit.

    Attributes:
        max_requests: Most that wait.
        max_wait_ns: Longest that one waits, nanoseconds.
    """

    max_requests: int = 0
    max_wait_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant and what it may hold, in token slots over the cluster.

    Attributes:
        queue: Its own queue limits.
        revision: The ledger's revision when the tenant last changed.
    """

    tenant_id: str
    display_name: str
    weight: int
    guaranteed_slots: int
    limit_slots: int
    request_budget: RequestBudget
    queue: QueueLimits = QueueLimits()
    revision: int = 0

    @property
    def etag(self) -> str:
        """Changes with every update, also over deletion and restart."""
        return f"r{self.revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A tenant's key; of the secret only its hash.

    Attributes:
        expire_ns: When it expires, nanoseconds since the epoch; None: never.
    """

    key_id: str
    tenant_id: str
    secret_hash: str
    expire_ns: int | None = None

    def is_expired(self, now_ns: int) -> bool:
        """Returns whether it is refused from now on."""
        return self.expire_ns is not None and self.expire_ns <= now_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A layer profile without its content.

    Attributes:
        profile_id: First 12 hexadecimal digits of `sha256`.
        created_ns: When it was uploaded, nanoseconds since the epoch.
        revision: The ledger's revision when it was uploaded.
    """

    profile_id: str
    sha256: str
    model_fingerprint: str
    model_name: str
    num_layers: int
    created_ns: int
    revision: int = 0


@dataclass(frozen=True, slots=True)
class TenantCreated:
    """A tenant is created."""

    tenant: Tenant


@dataclass(frozen=True, slots=True)
class TenantUpdated:
    """A tenant gets new values."""

    tenant: Tenant


@dataclass(frozen=True, slots=True)
class TenantGone:
    """A tenant and all its keys are deleted."""

    tenant_id: str


@dataclass(frozen=True, slots=True)
class KeyPut:
    """A key is created."""

    key: Key


@dataclass(frozen=True, slots=True)
class KeyGone:
    """A key is revoked, or dropped long after it expired."""

    key_id: str
    tenant_id: str


@dataclass(frozen=True, slots=True)
class ProfilePut:
    """A profile is uploaded."""

    profile: Profile
    content: bytes


@dataclass(frozen=True, slots=True)
class ProfileActive:
    """A profile becomes the active one of its model."""

    profile: Profile


@dataclass(frozen=True, slots=True)
class ProfileGone:
    """A profile is deleted."""

    profile_id: str


@dataclass(frozen=True, slots=True)
class ReplicaJoined:
    """A replica is leased anew; the change's revision is its epoch."""

    replica_id: str


@dataclass(frozen=True, slots=True)
class ReplicaGone:
    """A replica's lease lapsed."""

    replica_id: str


Event = (
    TenantCreated
    | TenantUpdated
    | TenantGone
    | KeyPut
    | KeyGone
    | ProfilePut
    | ProfileActive
    | ProfileGone
    | ReplicaJoined
    | ReplicaGone
)


@dataclass(frozen=True, slots=True)
class Change:
    """Events that become true together.

    Attributes:
        revision: The ledger's revision afterwards; always one more than before.
        events: In order; empty for a request that changes nothing, which keeps the revision.
    """

    revision: int
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The durable part of the ledger.

    Attributes:
        active: Active profile id by model fingerprint.
        epochs: Epoch of each replica that held a lease.
    """

    revision: int = 0
    tenants: tuple[Tenant, ...] = ()
    keys: tuple[Key, ...] = ()
    profiles: tuple[Profile, ...] = ()
    active: Mapping[str, str] = field(default_factory=dict)
    epochs: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantUse:
    """A tenant's use and demand at one replica; slots and request counts.

    Attributes:
        leased_slots: What an earlier stream's lease still allows; counts in the first report of a stream.
        squeezed_slots: What running requests gave up when they were squeezed.
    """

    reserved_slots: int = 0
    wanted_slots: int = 0
    active_requests: int = 0
    refused_requests: int = 0
    leased_slots: int = 0
    queued_requests: int = 0
    squeezed_slots: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a replica says of itself; slots, and bytes per slot.

    Attributes:
        applied_seq: The last answer on its stream that is in force; None where it does not say.
        incremental: It is leased only the tenants that it names.
        report_seq: Number of the report on its stream; 0 where it does not count.
    """

    replica_id: str
    model: str = ""
    capacity_slots: int
    used_slots: int = 0
    bytes_per_slot: int = 0
    profile_id: str = ""
    tenants: Mapping[str, TenantUse] = field(default_factory=dict)
    applied_seq: int | None = None
    incremental: bool = False
    report_seq: int = 0
