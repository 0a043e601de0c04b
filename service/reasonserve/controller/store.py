"""The ledger's durable half in a database: SQLite by default, any SQLAlchemy URL otherwise.

Each change is one transaction that also advances the revision from the very value it was
planned on, in the term of the store that writes it. Opening a store begins a term, so that an
earlier controller on the same database is refused from then on instead of interleaved.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from reasonserve.controller.database import connect, migrate, unusable
from reasonserve.controller.records import Change, Key, Snapshot
from reasonserve.controller.schema import (
    KEYS,
    META,
    PROFILES,
    REPLICAS,
    TENANTS,
    statements,
    to_profile,
    to_tenant,
)
from reasonserve.errors import NotFoundError, StartupError, UnavailableError


class Store:
    """A database that holds one ledger. Thread-safe; `close` it. The newest store of a database alone may write.

    Args:
        url: SQLAlchemy URL, such as ``sqlite:////var/lib/reasonserve/controller.db``.

    Raises:
        StartupError: The database cannot be used, or a newer release wrote it.
    """

    def __init__(self, url: str) -> None:
        self._engine = connect(url)
        try:
            with self._engine.begin() as connection:
                migrate(connection)
                connection.execute(sa.update(META).values(term=META.c.term + 1))
                self._term = connection.execute(sa.select(META.c.term)).scalar_one()
        except SQLAlchemyError as error:
            self.close()
            raise unusable(error) from error
        except StartupError:
            self.close()
            raise

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
        mine = sa.and_(META.c.revision == change.revision - 1, META.c.term == self._term)
        advance = sa.update(META).where(mine).values(revision=change.revision)
        try:
            with self._engine.begin() as connection:
                if connection.execute(advance).rowcount != 1:
                    raise UnavailableError(
                        "Another controller took the database over: this one must be stopped or restarted."
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
