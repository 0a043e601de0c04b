"""Connects to the controller's database, SQLite or PostgreSQL, and brings its tables up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from reasonserve.errors import StartupError

_MIGRATIONS = Path(__file__).with_name("migrations")
_FIRST_SCHEMA = 1
# A server that is gone must be noticed before a lease lapses, not after TCP's own two hours.
_POSTGRES_ARGUMENTS = {
    "connect_timeout": 5,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 2,
    "tcp_user_timeout": 4_000,
    # The same seen from the server: it frees the lock of a controller whose machine is gone.
    "options": "-c tcp_keepalives_idle=2 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=3",
}


def connect(url: str) -> sa.Engine:
    """Returns an engine for a database; connects on first use. The caller disposes of it.

    Raises:
        StartupError: The URL is none, or names another kind of database or a driver that is not installed.
    """
    try:
        return _connect(sa.make_url(url))
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        raise unusable(error) from error


def _connect(given: sa.URL) -> sa.Engine:
    if given.drivername == "postgresql":
        given = given.set(drivername="postgresql+psycopg")
    if given.get_backend_name() not in ("sqlite", "postgresql"):
        raise StartupError(
            f"The database URL names {given.get_backend_name()!r}: allowed are sqlite:///FILE and "
            "postgresql://USER@HOST/DATABASE."
        )
    if given.get_backend_name() == "postgresql":
        return sa.create_engine(given, connect_args=dict(_POSTGRES_ARGUMENTS), pool_pre_ping=True)
    engine = sa.create_engine(given)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def unusable(error: Exception) -> StartupError:
    """Returns what to say of a database that failed at the start; its own words may hold a password."""
    return StartupError(
        f"The database cannot be used ({type(error).__name__}): check --database-url, that its driver is "
        "installed and that it may be written."
    )


def migrate(connection: sa.Connection) -> None:
    """Brings the tables to this release's schema, all steps or none; the caller's transaction holds them.

    Raises:
        StartupError: A newer release wrote the database.
    """
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        if _is_unversioned(connection):
            command.stamp(config, "0001")
        command.upgrade(config, "head")
    except CommandError as error:
        raise StartupError(
            "The database has a schema that this release does not know: start a newer controller, or restore a "
            "backup that this release made."
        ) from error


def _is_unversioned(connection: sa.Connection) -> bool:
    """Returns whether the tables are those of the first release, which had its own version column."""
    inspector = sa.inspect(connection)
    if inspector.has_table("alembic_version") or not inspector.has_table("meta"):
        return False
    found = connection.execute(sa.text("SELECT schema_version FROM meta")).scalar_one()
    if found != _FIRST_SCHEMA:
        raise StartupError(
            f"The database has schema version {found}, this release knows {_FIRST_SCHEMA} and its own: "
            "restore a backup."
        )
    return True


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Makes a commit durable before it returns, also through a power loss."""
    # Python's driver would begin no transaction for DDL; `_begin_sqlite` begins one for everything.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")
