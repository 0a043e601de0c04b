"""The tables of the controller's database after all migrations, and how records become rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, assert_never

import sqlalchemy as sa

from reasonserve.controller import records
from reasonserve.controller.records import Event, Profile, QueueLimits, RequestBudget, Tenant

METADATA = sa.MetaData()
META = sa.Table(
    "meta",
    METADATA,
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("term", sa.BigInteger, nullable=False, server_default="0"),
)
TENANTS = sa.Table(
    "tenants",
    METADATA,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("display_name", sa.Text, nullable=False),
    sa.Column("weight", sa.Integer, nullable=False),
    sa.Column("guaranteed_slots", sa.BigInteger, nullable=False),
    sa.Column("limit_slots", sa.BigInteger, nullable=False),
    sa.Column("min_tokens", sa.Integer, nullable=False),
    sa.Column("default_tokens", sa.Integer, nullable=False),
    sa.Column("max_tokens", sa.Integer, nullable=False),
    sa.Column("queue_requests", sa.Integer, nullable=False, server_default="0"),
    sa.Column("queue_wait_ns", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("revision", sa.BigInteger, nullable=False),
)
KEYS = sa.Table(
    "tenant_keys",
    METADATA,
    sa.Column("key_id", sa.Text, primary_key=True),
    sa.Column("tenant_id", sa.ForeignKey("tenants.tenant_id", ondelete="CASCADE"), nullable=False),
    sa.Column("secret_hash", sa.Text, nullable=False),
    sa.Column("expire_ns", sa.BigInteger),
    sa.Index("tenant_keys_by_tenant", "tenant_id"),
)
PROFILES = sa.Table(
    "profiles",
    METADATA,
    sa.Column("profile_id", sa.Text, primary_key=True),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("model_fingerprint", sa.Text, nullable=False),
    sa.Column("model_name", sa.Text, nullable=False),
    sa.Column("num_layers", sa.Integer, nullable=False),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
)
REPLICAS = sa.Table(
    "replicas",
    METADATA,
    sa.Column("replica_id", sa.Text, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
)

_BUDGET = ("min_tokens", "default_tokens", "max_tokens")


def statements(event: Event, revision: int) -> tuple[sa.Executable, ...]:
    """Translates an event of a change to the statements that make it true."""
    match event:
        case records.TenantCreated(tenant):
            return (sa.insert(TENANTS).values(_from_tenant(tenant)),)
        case records.TenantUpdated(tenant):
            return (sa.update(TENANTS).where(TENANTS.c.tenant_id == tenant.tenant_id).values(_from_tenant(tenant)),)
        case records.TenantGone(tenant_id):
            return (
                sa.delete(KEYS).where(KEYS.c.tenant_id == tenant_id),
                sa.delete(TENANTS).where(TENANTS.c.tenant_id == tenant_id),
            )
        case records.KeyPut(key):
            return (sa.insert(KEYS).values(asdict(key)),)
        case records.KeyGone(key_id, _):
            return (sa.delete(KEYS).where(KEYS.c.key_id == key_id),)
        case records.ProfilePut(profile, content):
            return (sa.insert(PROFILES).values(active=False, content=content, **asdict(profile)),)
        case records.ProfileActive(profile):
            of_model = PROFILES.c.model_fingerprint == profile.model_fingerprint
            chosen = PROFILES.c.profile_id == profile.profile_id
            return (sa.update(PROFILES).where(of_model).values(active=chosen),)
        case records.ProfileGone(profile_id):
            return (sa.delete(PROFILES).where(PROFILES.c.profile_id == profile_id),)
        case records.ReplicaJoined(replica_id):
            row = {"replica_id": replica_id, "epoch": revision}
            return (sa.delete(REPLICAS).where(REPLICAS.c.replica_id == replica_id), sa.insert(REPLICAS).values(row))
        case records.ReplicaGone(replica_id):
            return (sa.delete(REPLICAS).where(REPLICAS.c.replica_id == replica_id),)
        case _:
            assert_never(event)


def to_tenant(row: sa.Row[Any]) -> Tenant:
    """Reads a row of `TENANTS`."""
    columns = dict(row._mapping)
    budget = RequestBudget(**{name: columns.pop(name) for name in _BUDGET})
    queue = QueueLimits(max_requests=columns.pop("queue_requests"), max_wait_ns=columns.pop("queue_wait_ns"))
    return Tenant(request_budget=budget, queue=queue, **columns)


def to_profile(row: sa.Row[Any]) -> Profile:
    """Reads a row of `PROFILES`, with or without its content."""
    columns = dict(row._mapping)
    return Profile(**{name: columns[name] for name in Profile.__dataclass_fields__})


def _from_tenant(tenant: Tenant) -> dict[str, Any]:
    columns = asdict(tenant)
    queue = columns.pop("queue")
    limits = {"queue_requests": queue["max_requests"], "queue_wait_ns": queue["max_wait_ns"]}
    return {**columns.pop("request_budget"), **limits, **columns}
