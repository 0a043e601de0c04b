"""Migrations on real databases: to the tables the code expects, from every release, all steps or none."""

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

from reasonserve import errors
from reasonserve.controller import database
from reasonserve.controller.records import Key
from reasonserve.controller.schema import METADATA
from reasonserve.controller.store import Store

MIGRATIONS = str(database._MIGRATIONS)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request, database_path):
    if request.param == "sqlite":
        url = f"sqlite:///{database_path}"
    else:
        url = request.getfixturevalue("postgres").new_database()
    made = database.connect(url)
    yield made
    made.dispose()


def _url(engine):
    return engine.url.render_as_string(hide_password=False)


def _first_release(engine):
    """Makes the tables as the first release did: no version of Alembic's, one row of meta, a tenant with a key."""
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql("DROP TABLE alembic_version")
        connection.exec_driver_sql("INSERT INTO tenants VALUES ('acme', '', 1, 0, 9, 32, 64, 128, 1)")
        connection.exec_driver_sql("INSERT INTO tenant_keys VALUES ('k', 'acme', 'h')")
        connection.exec_driver_sql("UPDATE meta SET revision = 1")


def _migrate(engine):
    with engine.begin() as connection:
        database.migrate(connection)


def _differences(engine):
    with engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), METADATA)


def test_an_empty_database_gets_the_tables_that_the_code_expects(engine):
    _migrate(engine)
    assert _differences(engine) == []
    _migrate(engine)
    assert _differences(engine) == []


def test_a_database_of_the_first_release_is_taken_over(engine):
    _first_release(engine)
    store = Store(_url(engine))
    snapshot = store.load()
    store.close()
    assert (snapshot.revision, [tenant.tenant_id for tenant in snapshot.tenants]) == (1, ["acme"])
    assert snapshot.keys == (Key(key_id="k", tenant_id="acme", secret_hash="h", expire_ns=None),)
    assert _differences(engine) == []


def test_an_unknown_early_schema_is_refused(engine):
    _first_release(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE meta SET schema_version = 7")
    with pytest.raises(errors.StartupError, match="schema version 7"):
        Store(_url(engine))


def test_a_newer_schema_is_refused(engine):
    _migrate(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(errors.StartupError, match="newer controller"):
        Store(_url(engine))


def test_a_migration_that_fails_midway_leaves_everything_as_it_was(engine, monkeypatch):
    _first_release(engine)
    monkeypatch.setattr(Operations, "create_index", lambda *_: (_ for _ in ()).throw(sa.exc.DBAPIError("", {}, None)))
    with pytest.raises(errors.StartupError):
        Store(_url(engine))
    with engine.connect() as connection:
        assert not sa.inspect(connection).has_table("alembic_version")
        columns = {column["name"] for column in sa.inspect(connection).get_columns("meta")}
    assert columns == {"schema_version", "revision"}
    monkeypatch.undo()
    Store(_url(engine)).close()
    assert _differences(engine) == []


def test_revisions_form_one_line():
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    config.set_main_option("path_separator", "os")
    steps = list(ScriptDirectory.from_config(config).walk_revisions())
    assert [step.revision for step in steps] == ["0004", "0003", "0002", "0001"]
