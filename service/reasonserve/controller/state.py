"""The durable half of the ledger: tenants, keys, profiles and the replicas' epochs, moved by changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, assert_never

from reasonserve.controller import records
from reasonserve.controller.records import Change, Event, Key, Profile, Snapshot, Tenant
from reasonserve.errors import NotFoundError, StaleEtagError

_Kept = TypeVar("_Kept")


class State:
    """What survives a restart. Only `apply` changes it.

    Args:
        snapshot: What to begin with.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._revision = snapshot.revision
        self._tenants = {tenant.tenant_id: tenant for tenant in snapshot.tenants}
        self._keys = {key.key_id: key for key in snapshot.keys}
        self._keys_of: dict[str, set[str]] = {}
        for key in snapshot.keys:
            self._keys_of.setdefault(key.tenant_id, set()).add(key.key_id)
        self._guaranteed = sum(tenant.guaranteed_slots for tenant in snapshot.tenants)
        self._profiles = {profile.profile_id: profile for profile in snapshot.profiles}
        self._active = dict(snapshot.active)
        self._epochs = dict(snapshot.epochs)
        self.check_integrity()

    @property
    def revision(self) -> int:
        """Grows by one with every change."""
        return self._revision

    @property
    def tenants(self) -> Mapping[str, Tenant]:
        """Tenants by id."""
        return self._tenants

    @property
    def guaranteed_slots(self) -> int:
        """Sum of all guarantees."""
        return self._guaranteed

    @property
    def profiles(self) -> Mapping[str, Profile]:
        """Profiles by id."""
        return self._profiles

    @property
    def epochs(self) -> Mapping[str, int]:
        """Epoch of each replica that holds or, before a restart, held a lease."""
        return self._epochs

    def tenant(self, tenant_id: str) -> Tenant:
        """Returns a tenant.

        Raises:
            NotFoundError: There is none.
        """
        return find(self._tenants, tenant_id, "tenant", "tenant_id")

    def key(self, key_id: str) -> Key | None:
        """Returns a key, or None when it is unknown or revoked."""
        return self._keys.get(key_id)

    def valid_key(self, key_id: str, now_ns: int) -> Key | None:
        """Returns a key, or None when it is unknown, revoked or, at a time in nanoseconds since the epoch, expired."""
        key = self._keys.get(key_id)
        return None if key is None or key.is_expired(now_ns) else key

    def keys_of(self, tenant_id: str) -> tuple[Key, ...]:
        """Returns a tenant's keys by id."""
        return tuple(self._keys[k] for k in sorted(self._keys_of.get(tenant_id, ())))

    def profile(self, profile_id: str) -> Profile:
        """Returns a profile.

        Raises:
            NotFoundError: There is none.
        """
        return find(self._profiles, profile_id, "profile", "profile_id")

    def active_profile(self, model_fingerprint: str) -> Profile:
        """Returns the active profile of a model.

        Raises:
            NotFoundError: There is none.
        """
        active = find(self._active, model_fingerprint, "active profile of model", "model_fingerprint")
        return self._profiles[active]

    def newest_profiles(self) -> tuple[Profile, ...]:
        """Returns all profiles, newest first."""
        return tuple(sorted(self._profiles.values(), key=lambda profile: -profile.revision))

    def is_active(self, profile: Profile) -> bool:
        """Returns whether the profile is the active one of its model."""
        return self._active.get(profile.model_fingerprint) == profile.profile_id

    def snapshot(self) -> Snapshot:
        """Returns the durable state."""
        return Snapshot(
            revision=self._revision,
            tenants=tuple(self._tenants[t] for t in sorted(self._tenants)),
            keys=tuple(self._keys[k] for k in sorted(self._keys)),
            profiles=tuple(self._profiles[p] for p in sorted(self._profiles)),
            active=dict(self._active),
            epochs=dict(self._epochs),
        )

    def apply(self, change: Change) -> None:
        """Makes a change true.

        Raises:
            StaleEtagError: The change was planned on another revision; nothing happens.
        """
        if change.revision != self._revision + bool(change.events):
            raise StaleEtagError(f"Revision {change.revision} does not follow {self._revision}.")
        for event in change.events:
            self._apply(event, change.revision)
        self._revision = change.revision

    def check_integrity(self) -> None:
        """Asserts that every reference resolves and no revision lies in the future."""
        assert all(key.tenant_id in self._tenants for key in self._keys.values()), "a key without its tenant"
        indexed = {(key_id, tenant_id) for tenant_id, ids in self._keys_of.items() for key_id in ids}
        assert indexed == {(k, key.tenant_id) for k, key in self._keys.items()}, "a wrong index of keys"
        assert self._guaranteed == sum(t.guaranteed_slots for t in self._tenants.values()), "a wrong sum of guarantees"
        for fingerprint, profile_id in self._active.items():
            assert self._profiles[profile_id].model_fingerprint == fingerprint, "a profile active for another model"
        revisions = [t.revision for t in self._tenants.values()] + [p.revision for p in self._profiles.values()]
        assert all(0 < revision <= self._revision for revision in [*revisions, *self._epochs.values()])

    def _apply(self, event: Event, revision: int) -> None:
        match event:
            case records.TenantCreated(tenant) | records.TenantUpdated(tenant):
                stored = self._tenants.get(tenant.tenant_id)
                self._guaranteed += tenant.guaranteed_slots - (stored.guaranteed_slots if stored else 0)
                self._tenants[tenant.tenant_id] = tenant
            case records.TenantGone(tenant_id):
                self._guaranteed -= self._tenants.pop(tenant_id).guaranteed_slots
                for key_id in self._keys_of.pop(tenant_id, ()):
                    del self._keys[key_id]
            case records.KeyPut(key):
                self._keys[key.key_id] = key
                self._keys_of.setdefault(key.tenant_id, set()).add(key.key_id)
            case records.KeyGone(key_id, tenant_id):
                del self._keys[key_id]
                self._keys_of[tenant_id].discard(key_id)
            case records.ProfilePut(profile):
                self._profiles[profile.profile_id] = profile
            case records.ProfileActive(profile):
                self._active[profile.model_fingerprint] = profile.profile_id
            case records.ProfileGone(profile_id):
                del self._profiles[profile_id]
            case records.ReplicaJoined(replica_id):
                self._epochs[replica_id] = revision
            case records.ReplicaGone(replica_id):
                del self._epochs[replica_id]
            case _:
                assert_never(event)


def find(kept: Mapping[str, _Kept], name: str, kind: str, field: str) -> _Kept:
    """Returns an entry.

    Raises:
        NotFoundError: There is none of this name.
    """
    try:
        return kept[name]
    except KeyError:
        raise NotFoundError(f"There is no {kind} {name[:80]!r}: list them and name one.", field=field) from None
