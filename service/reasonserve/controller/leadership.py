"""Which of several controllers on one PostgreSQL leads: the one whose session holds an advisory lock.

The lock belongs to a session, so it is free as soon as the leader's process, machine or network
is gone and PostgreSQL noticed. A leader that lost its session without noticing yet cannot write:
the store's term fences it.

On SQLite it is the one that locks a file beside the database; the lock ends with its process.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.exc import SQLAlchemyError

from reasonserve.controller.database import connect, unusable

_LOG = logging.getLogger(__name__)
# Arbitrary, and the same in every release; advisory locks are per database.
_LOCK = sa.text("SELECT pg_try_advisory_lock(8245917063521)")
_UNLOCK = sa.text("SELECT pg_advisory_unlock(8245917063521)")


class Leadership:
    """One controller's claim. Not thread-safe; `close` it, which gives the leadership up.

    Args:
        url: SQLAlchemy URL of the database.

    Raises:
        StartupError: The database cannot be used.
    """

    def __init__(self, url: str) -> None:
        self._engine = connect(url)
        self._session: sa.Connection | None = None
        self._contested = self._engine.dialect.name == "postgresql"
        self._file = _lock_beside(self._engine.url)

    @property
    def contested(self) -> bool:
        """Whether the leadership may be lost while the process lives."""
        return self._contested

    def acquire(self) -> bool:
        """Returns whether this controller leads from now on; blocks for one round trip.

        Raises:
            StartupError: The database cannot be used.
        """
        if not self._contested:
            return self._lock_file()
        try:
            session = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            if session.execute(_LOCK).scalar_one():
                self._session = session
                return True
            session.close()
        except SQLAlchemyError as error:
            raise unusable(error) from error
        return False

    def held(self) -> bool:
        """Returns whether this controller still leads; blocks for one round trip."""
        if not self._contested:
            return True
        if self._session is None:
            return False
        try:
            self._session.execute(sa.text("SELECT 1"))
        except SQLAlchemyError as error:
            _LOG.error("The database session that holds the leadership is gone (%s).", type(error).__name__)
            return False
        return True

    def close(self) -> None:
        """Gives the leadership up."""
        if self._session is not None:
            # Said aloud, for the server notices a closed session a moment later.
            with suppress(SQLAlchemyError):
                self._session.execute(_UNLOCK)
            self._session.invalidate()
            self._session.close()
            self._session = None
        if self._file is not None:
            self._file.release()
        self._engine.dispose()

    def _lock_file(self) -> bool:
        try:
            if self._file is not None:
                self._file.acquire(blocking=False)
        except Timeout:
            return False
        except OSError as error:
            raise unusable(error) from error
        return True


def _lock_beside(url: sa.URL) -> FileLock | None:
    """Returns the lock of a SQLite file; None for another database or one in memory."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return None
    return FileLock(f"{Path(url.database).resolve()}.lock", thread_local=False)
