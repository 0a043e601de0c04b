"""The store on a real SQLite file and a real PostgreSQL: what was written is there again, and nothing else."""

import pytest

from reasonserve import errors
from reasonserve.controller.database import connect
from reasonserve.controller.ledger import Ledger
from reasonserve.controller.records import Key, Profile, QueueLimits, RequestBudget, Snapshot, Tenant
from reasonserve.controller.store import Store

QUEUE = QueueLimits(max_requests=5, max_wait_ns=3600 * 10**9)


def _tenant(tenant_id="acme", limit=100, queue=QUEUE):
    return Tenant(
        tenant_id=tenant_id,
        display_name="Ä",
        weight=2,
        guaranteed_slots=10,
        limit_slots=limit,
        request_budget=RequestBudget(min_tokens=32, default_tokens=64, max_tokens=128),
        queue=queue,
    )


def _profile(name="p" * 12, model="m"):
    return Profile(
        profile_id=name, sha256=name, model_fingerprint=model, model_name="M", num_layers=3, created_ns=2**60
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, database_path):
    if request.param == "sqlite":
        return f"sqlite:///{database_path}"
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture
def store(database_url):
    opened = Store(database_url)
    yield opened
    opened.close()


@pytest.fixture
def ledger(store):
    return Ledger(store.load(), lease_ttl_s=10, now=0)


@pytest.fixture
def do(store, ledger):
    def write_and_apply(change):
        store.write(change)
        ledger.apply(change)

    return write_and_apply


def _reloaded(database_url):
    again = Store(database_url)
    try:
        return again.load()
    finally:
        again.close()


def test_an_empty_database_is_an_empty_ledger(store):
    assert store.load() == Snapshot()


def test_every_event_survives_a_restart(do, ledger, database_url):
    do(ledger.create_tenant(_tenant()))
    do(ledger.create_tenant(_tenant("gone", limit=2**62)))
    do(ledger.add_key(Key(key_id="k0", tenant_id="acme", secret_hash="h0"), now_ns=0))
    do(ledger.add_key(Key(key_id="k3", tenant_id="acme", secret_hash="h3", expire_ns=2**62), now_ns=0))
    do(ledger.add_key(Key(key_id="k1", tenant_id="acme", secret_hash="h1"), now_ns=0))
    do(ledger.add_key(Key(key_id="k2", tenant_id="gone", secret_hash="h2"), now_ns=0))
    do(ledger.update_tenant(_tenant(limit=50), mask=["limit_slots"], etag=""))
    do(ledger.create_tenant(_tenant("plain", queue=QueueLimits())))
    own = QueueLimits(max_requests=1024, max_wait_ns=10**6)
    do(ledger.update_tenant(_tenant("plain", queue=own), mask=["queue"], etag=""))
    do(ledger.revoke_key("acme", "k1"))
    do(ledger.delete_tenant("gone"))
    do(ledger.put_profile(_profile("a" * 12), b"old"))
    do(ledger.put_profile(_profile("b" * 12), b"new"))
    do(ledger.put_profile(_profile("c" * 12, model="other"), b"else"))
    for name in ("c", "b", "a"):
        do(ledger.activate_profile(name * 12))
    do(ledger.put_profile(_profile("d" * 12), b"gone"))
    do(ledger.delete_profile("d" * 12))
    do(ledger.join_replicas("r0"))
    do(ledger.join_replicas("r1"))
    do(ledger.join_replicas("r0"))
    restored = _reloaded(database_url)
    assert restored == ledger.state.snapshot()
    assert [tenant.queue for tenant in restored.tenants] == [QUEUE, own]
    assert [(key.key_id, key.expire_ns) for key in restored.keys] == [("k0", None), ("k3", 2**62)]
    assert restored.active == {"m": "a" * 12, "other": "c" * 12}


def test_lapsed_replicas_are_gone_after_a_restart(do, store, ledger, database_url):
    do(ledger.join_replicas("r0"))
    late = Ledger(store.load(), lease_ttl_s=10, now=0)
    store.write(late.expire(now=10))
    assert not _reloaded(database_url).epochs


def test_content_comes_back_byte_for_byte(do, store, ledger):
    content = bytes(range(256)) * 9
    do(ledger.put_profile(_profile(), content))
    assert store.profile_content("p" * 12) == content
    with pytest.raises(errors.NotFoundError):
        store.profile_content("q" * 12)


def test_a_second_writer_is_refused_and_changes_nothing(do, store, ledger, database_url):
    other = Ledger(store.load(), lease_ttl_s=10, now=0)
    do(ledger.create_tenant(_tenant()))
    with pytest.raises(errors.UnavailableError, match="Another controller"):
        store.write(other.create_tenant(_tenant("other")))
    assert _reloaded(database_url) == ledger.state.snapshot()


def test_an_earlier_store_may_not_write_once_a_later_one_is_open(do, store, ledger, database_url):
    """Even where nobody wrote meanwhile, so that the revision alone would let it."""
    do(ledger.create_tenant(_tenant()))
    later = Store(database_url)
    with pytest.raises(errors.UnavailableError, match="Another controller"):
        store.write(ledger.delete_tenant("acme"))
    assert later.load() == ledger.state.snapshot()
    later.write(ledger.delete_tenant("acme"))
    assert not later.load().tenants
    later.close()


def _execute(database_url, statement):
    engine = connect(database_url)
    with engine.begin() as connection:
        result = connection.exec_driver_sql(statement)
        rows = result.all() if result.returns_rows else []
    engine.dispose()
    return rows


def test_a_failed_write_leaves_nothing_behind(do, store, ledger, database_url):
    do(ledger.create_tenant(_tenant()))
    _execute(database_url, "DROP TABLE tenant_keys")
    with pytest.raises(errors.UnavailableError):
        store.write(ledger.add_key(Key(key_id="k", tenant_id="acme", secret_hash="h"), now_ns=0))
    assert ledger.state.revision == 1
    assert _execute(database_url, "SELECT revision FROM meta") == [(1,)]


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////proc/nowhere/x.db", "postgresql+nodriver://h/d"])
def test_an_unusable_database_is_refused(url):
    with pytest.raises(errors.StartupError, match="--database-url"):
        Store(url)


def test_another_kind_of_database_is_refused():
    with pytest.raises(errors.StartupError, match="allowed are sqlite"):
        Store("mysql://h/d")


def test_what_a_database_says_at_the_start_is_not_repeated():
    with pytest.raises(errors.StartupError) as caught:
        Store("postgresql://owner:a-password@localhost:1/d")
    assert "a-password" not in caught.value.message


def test_a_file_that_is_no_database_is_refused(database_path):
    database_path.write_bytes(b"not a database" * 100)
    with pytest.raises(errors.StartupError):
        Store(f"sqlite:///{database_path}")


def test_commits_are_synchronous(database_path):
    store = Store(f"sqlite:///{database_path}")
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    store.close()


def test_a_postgresql_that_became_read_only_refuses_writes_and_is_read(postgres):
    url = postgres.new_database()
    store = Store(url)
    ledger = Ledger(store.load(), lease_ttl_s=10, now=0)
    _set_read_only(url, "on")
    change = ledger.create_tenant(_tenant())
    with pytest.raises(errors.UnavailableError, match="cannot be written"):
        store.write(change)
    assert store.load() == Snapshot()
    _set_read_only(url, "off")
    store.write(change)
    assert [tenant.tenant_id for tenant in store.load().tenants] == ["acme"]
    store.close()


def _set_read_only(url, value):
    """Changes it for all sessions, and ends those that began before."""
    name = url.split("/")[3].split("?")[0]
    engine = connect(url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("SET default_transaction_read_only = off")
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}")
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        connection.exec_driver_sql(f"{others} AND datname = '{name}'")
    engine.dispose()
