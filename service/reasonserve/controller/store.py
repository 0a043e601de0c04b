"""The ledger's durable half in a database: SQLite by default, any SQLAlchemy URL otherwise.

Each change is one transaction that also advances the revision from the very value it was
planned on, so a second controller on the same database is refused instead of interleaved.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from reasonserve.controller.records import Change, Key, Snapshot
from reasonserve.controller.schema import (
    KEYS,
    META,
    PROFILES,
    REPLICAS,
    TENANTS,
    ensure_schema,
    statements,
    to_profile,
    to_tenant,
)
from reasonserve.errors import NotFoundError, StartupError, UnavailableError


class Store:
    """A database that holds one ledger. Thread-safe; `close` it.

    Args:
        url: SQLAlchemy URL, such as ``sqlite:////var/lib/reasonserve/controller.db``.

    Raises:
        StartupError: The database cannot be used, or another release wrote it.
    """

    def __init__(self, url: str) -> None:
        try:
            self._engine = _connect(url)
            with self._engine.begin() as connection:
                ensure_schema(connection)
        except (SQLAlchemyError, ModuleNotFoundError) as error:
            raise StartupError(
                f"The database cannot be used ({type(error).__name__}): check --database-url, that its driver is "
                "installed and that it may be written."
            ) from error

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def load(self) -> Snapshot:
        """Reads the durable state."""
        described = sa.select(*(column for column in PROFILES.c if column is not PROFILES.c.content))
        with self._engine.connect() as connection:
            profiles = connection.execute(described.order_by(PROFILES.c.profile_id)).all()
            return Snapshot(
                revision=connection.execute(sa.select(META.c.revision)).scalar_one(),
                tenants=tuple(map(to_tenant, connection.execute(sa.select(TENANTS).order_by(TENANTS.c.tenant_id)))),
                keys=tuple(Key(**row._mapping) for row in connection.execute(sa.select(KEYS).order_by(KEYS.c.key_id))),
                profiles=tuple(map(to_profile, profiles)),
                active={row.model_fingerprint: row.profile_id for row in profiles if row.active},
                epochs={row.replica_id: row.epoch for row in connection.execute(sa.select(REPLICAS))},
            )

    def write(self, change: Change) -> None:
        """Writes a change; it is durable when this returns.

        Raises:
            UnavailableError: The database failed, or another controller wrote to it.
        """
        if not change.events:
            return
        advance = sa.update(META).where(META.c.revision == change.revision - 1).values(revision=change.revision)
        try:
            with self._engine.begin() as connection:
                if connection.execute(advance).rowcount != 1:
                    raise UnavailableError(
                        "Another controller wrote to the database: stop all but one and restart that one."
                    )
                for event in change.events:
                    for statement in statements(event, change.revision):
                        connection.execute(statement)
        except SQLAlchemyError as error:
            raise UnavailableError("The controller's database cannot be written; nothing was changed.") from error

    def profile_content(self, profile_id: str) -> bytes:
        """Returns a profile's content as it was uploaded.

        Raises:
            NotFoundError: There is no such profile.
            UnavailableError: The database failed.
        """
        query = sa.select(PROFILES.c.content).where(PROFILES.c.profile_id == profile_id)
        try:
            with self._engine.connect() as connection:
                content = connection.execute(query).scalar_one_or_none()
        except SQLAlchemyError as error:
            raise UnavailableError("The controller's database cannot be read.") from error
        if content is None:
            raise NotFoundError(f"There is no profile {profile_id[:80]!r}.", field="profile_id")
        return bytes(content)


def _connect(url: str) -> sa.Engine:
    engine = sa.create_engine(url)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Makes a commit durable before it returns, also through a power loss."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
