"""The verbs of the command line against a real controller process."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import assume, example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from reasonserve import controller_client, errors
from reasonserve.api.v1 import lease_service_pb2 as lease_pb
from reasonserve.api.v1 import tenant_service_pb2 as pb
from reasonserve.cli.main import app
from reasonserve.cli.tenant_key import key_request, show_keys
from reasonserve.models import profiles


@pytest.fixture
def controller(start):
    return start("--capacity-slots", "1000")


@pytest.fixture
def run(controller, tmp_path):
    runner = CliRunner()
    token = (tmp_path / "admin.token").read_text().strip()

    def run_one(*words, token=token):
        environment = {"REASONSERVE_CONTROLLER": f"127.0.0.1:{controller.port}", "REASONSERVE_ADMIN_TOKEN": token}
        return runner.invoke(app, [*words, "--state-dir", str(tmp_path)], env=environment)

    return run_one


@pytest.fixture
def replica(controller, tmp_path):
    """A replica with 30 of 500 slots reserved by team-a, which wants 5 more."""
    admin = controller_client.admin_metadata((tmp_path / "admin.token").read_text().strip())
    demand = lease_pb.TenantDemand(
        tenant_id="team-a", reserved_slots=30, wanted_slots=5, active_requests=2, refused_requests=7
    )
    report = lease_pb.LeaseRequest(replica_id="r0", capacity_slots=500, bytes_per_slot=1 << 20, tenants=[demand])
    with controller_client.open_blocking_channel(f"127.0.0.1:{controller.port}") as channel:
        requests = iter([report])
        stream = controller_client.stubs(channel).leases.Lease(requests, metadata=admin)
        next(stream)
        yield
        stream.cancel()


def _create(run, *more):
    return run("tenant", "create", "team-a", "--limit-slots", "2000", *more)


def test_overcommit_is_refused_accepted_and_warned_of(run):
    refused = _create(run, "--guaranteed-slots", "1500")
    assert refused.exit_code == 1
    assert "allow_overcommit" in refused.stderr
    accepted = _create(run, "--guaranteed-slots", "1500", "--allow-overcommit")
    assert accepted.exit_code == 0
    assert "Warning: The tenants' guarantees sum to 1500 slots" in accepted.stderr
    assert "Warning" in run("tenant", "set-budget", "team-a", "--weight", "2").stderr
    mended = run("tenant", "set-budget", "team-a", "--guaranteed-slots", "900")
    assert (mended.exit_code, mended.stderr) == (0, "")


def test_usage_is_shown_per_replica_and_to_the_tenant_itself(run, request):
    created = _create(run, "--guaranteed-slots", "100")
    key = next(word for word in created.stdout.split() if word.startswith("rsk_"))
    request.getfixturevalue("replica")
    shown = run("tenant", "usage").stdout
    assert "r0" in shown
    assert "30.0 MiB" in shown
    (usage,) = json.loads(run("tenant", "usage", "team-a", "--json", token=key).stdout)["usage"]
    assert (usage["tenant_id"], usage["reserved_slots"], usage["replicas"][0]["replica_id"]) == ("team-a", "30", "r0")
    denied = run("tenant", "usage", token=key)
    assert denied.exit_code == 1
    assert "'team-a' alone" in denied.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--weight", "0"), "--weight"),
        (("--limit-slots", "9" * 20), "limit_slots: given 99999999999999999999, which is out of range"),
        (("--budget-max", "9" * 10), "max_tokens: given 9999999999, which is out of range"),
    ],
)
def test_numbers_that_no_message_carries_are_refused(run, options, said):
    refused = run("tenant", "create", "team-a", *options)
    assert refused.exit_code in (1, 2)
    assert said in refused.stderr
    assert "No tenants yet" in run("tenant", "list").stdout


def test_a_key_may_have_an_end_which_is_shown(run):
    created = _create(run, "--key-ttl", "12h").stdout
    made = json.loads(run("tenant", "key", "create", "team-a", "--ttl", "30d", "--json").stdout)
    endless = json.loads(run("tenant", "key", "create", "team-a", "--json").stdout)
    end = datetime.fromisoformat(made["expire_time"])
    assert timedelta(days=29) < end - datetime.now(UTC) <= timedelta(days=30)
    assert "expire_time" not in endless
    keys = json.loads(run("tenant", "show", "team-a", "--json").stdout)["tenant"]["keys"]
    assert {key["key_id"]: key.get("expire_time") for key in keys}.items() >= {
        (made["key_id"], made["expire_time"]),
        (endless["key_id"], None),
    }
    shown = " ".join(run("tenant", "show", "team-a").stdout.split())
    (first,) = re.findall(r"Key (\w+), valid until (.+ UTC), shown only now", created)
    last = (made["key_id"], f"{end:%Y-%m-%d %H:%M:%S} UTC")
    for listed in (first, last, (endless["key_id"], "it is revoked")):
        assert " ".join(listed) in shown
    assert "expired" not in shown


@pytest.mark.parametrize("command", [("create", "team-a", "--key-ttl"), ("key", "create", "team-a", "--ttl")])
def test_a_wrong_end_is_refused_before_anything_is_made(run, command):
    refused = run("tenant", *command, "3651d")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f"{command[-1]}: given '3651d'; allowed is" in refused.stderr
    assert "No tenants yet" in run("tenant", "list").stdout


@given(st.integers(0, 10**9), st.sampled_from("smhd"))
def test_a_span_is_its_number_of_units(number, unit):
    name = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[unit]
    if 0 < number <= timedelta(days=3650) / timedelta(**{name: 1}):
        asked = key_request("a", f"{number}{unit}").ttl
        assert asked.ToTimedelta() == timedelta(**{name: number})
    else:
        with pytest.raises(errors.InvalidRequestError, match="at most 3650d"):
            key_request("a", f"{number}{unit}")


@given(st.text() | st.from_regex(r"[+-]?[0-9]+(\.[0-9]+)? ?[smhdSw]?"))
@example("30days")
@example("30d\n")
@example("٣d")
def test_what_is_no_span_is_refused(text):
    assume(not re.fullmatch(r"[0-9]+[smhd]", text))
    with pytest.raises(errors.InvalidRequestError, match="such as 12h or 30d"):
        key_request("a", text)


def test_a_key_that_expired_is_shown_so(capsys):
    show_keys([pb.TenantKey(key_id=name, expire_time=Timestamp(seconds=s)) for name, s in (("old", 1), ("new", 2**34))])
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.endswith("old 1970-01-01 00:00:01 UTC (expired) new 2514-05-30 01:53:04 UTC")


def test_a_controller_that_is_not_there_is_named(run):
    refused = run("tenant", "list", "--controller", "127.0.0.1:1")
    assert refused.exit_code == 1
    assert "127.0.0.1:1 cannot be reached" in refused.stderr


def test_without_a_token_it_says_how_to_give_one(tmp_path):
    environment = {"REASONSERVE_ADMIN_TOKEN": "", "REASONSERVE_CONTROLLER": "127.0.0.1:1"}
    refused = CliRunner().invoke(app, ["status", "--state-dir", str(tmp_path)], env=environment)
    assert refused.exit_code == 1
    assert "--admin-token" in refused.stderr


def test_top_shows_one_reading(run, request):
    _create(run, "--guaranteed-slots", "100")
    request.getfixturevalue("replica")
    (row,) = (line.split() for line in run("top", "--once").stdout.splitlines() if "team-a" in line)
    assert row == ["team-a", "30", "500", "100", "2000", "5", "2", "0", "0", "7"]
    reading = json.loads(run("top", "--once", "--json").stdout)
    assert (reading["capacity_slots"], reading["tenants"][0]["refused_requests"]) == ("500", "7")


def test_a_profile_that_is_not_there_cannot_be_deleted(run):
    missing = run("profile", "delete", "0123456789ab")
    assert missing.exit_code == 1
    assert "There is no profile" in missing.stderr


def test_every_verb_speaks_json(run):
    """In the order of a tenant's life; the key of `create` is the only time that it is shown."""
    made = json.loads(_create(run, "--json").stdout)
    assert (made["tenant"]["tenant_id"], made["warning"]) == ("team-a", "")
    assert made["key"].startswith(f"rsk_{made['key_id']}_")
    changed = json.loads(run("tenant", "set-budget", "team-a", "--weight", "3", "--json").stdout)
    assert changed["tenant"]["weight"] == 3
    second = json.loads(run("tenant", "key", "create", "team-a", "--json").stdout)
    assert json.loads(run("tenant", "key", "revoke", "team-a", second["key_id"], "--json").stdout) == {}
    shown = json.loads(run("tenant", "show", "team-a", "--json").stdout)["tenant"]
    assert [key["key_id"] for key in shown["keys"]] == [made["key_id"]]
    assert second["key"] not in json.dumps(shown)
    assert json.loads(run("tenant", "list", "--json").stdout)["tenants"] == [shown]
    assert json.loads(run("status", "--json").stdout)["tenants"][0]["tenant_id"] == "team-a"
    assert json.loads(run("tenant", "delete", "team-a", "--json").stdout) == {}
    assert "No tenants yet" in run("tenant", "list").stdout


def test_profiles_speak_json(run):
    shipped = next(Path(profiles.__file__).parent.rglob("*.json"))
    stored = json.loads(run("profile", "upload", str(shipped), "--json").stdout)["profile"]
    assert not stored["active"]
    profile_id = stored["profile_id"]
    assert json.loads(run("profile", "activate", profile_id, "--json").stdout)["profile"]["active"]
    assert json.loads(run("profile", "list", "--json").stdout)["profiles"][0]["profile_id"] == profile_id
    assert json.loads(run("profile", "show", profile_id, "--json").stdout) == json.loads(shipped.read_text())
    refused = run("profile", "delete", profile_id, "--json")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "activate another first" in refused.stderr
