"""Faults on the real processes: nothing is lost, nothing is granted twice, and the cluster recovers."""

import math

import pytest

from reasonserve.bench.control import faults
from reasonserve.bench.control.cluster import running
from reasonserve.bench.control.timeline import Told, over_granted, recovered_s

TTL_S = 2.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with running(tmp_path_factory.mktemp("faults"), replicas=faults.REPLICAS, lease_ttl_s=TTL_S) as started:
        yield started


# One cluster for all, which is what a long-lived one has to bear; the replica that is killed comes last.
@pytest.mark.parametrize("name", [*(name for name in faults.SCENARIOS if name != "replica-killed"), "replica-killed"])
def test_a_fault_costs_no_request_and_grants_no_slot_twice(cluster, name, record_property):
    outcome = faults.SCENARIOS[name](cluster)
    record_property("recovery_s", outcome.recovery_s)
    assert outcome.requests > 0
    assert (outcome.lost, outcome.over_granted, outcome.writes_lost) == (0, 0, 0)
    assert math.isfinite(outcome.recovery_s)
    if name in ("full", "read-only"):
        assert outcome.refused_as.startswith("UNAVAILABLE: The controller's database cannot be written")


def _lease(at, until, allowed, carried=0):
    return {"kind": "lease", "at": at, "until": until, "allowed": {"a": allowed}, "carried": {"a": carried}}


def test_the_timeline_counts_what_is_in_force_at_once():
    first, second = Told([_lease(1, 10, 60)]), Told([_lease(2, 10, 40), _lease(3, 10, 50), _lease(12, 20, 100)])
    assert over_granted([first, second], {"a": 100}) == (10, 0)
    first.ended_at = 2.5
    assert over_granted([first, second], {"a": 100}) == (0, 0)
    assert recovered_s([second], {"a": 100}, 4, all_told=True) == 8
    assert recovered_s([first], {"a": 100}, 4, all_told=True) == math.inf
    assert over_granted([second, Told([_lease(13, 20, 30, carried=20)])], {"a": 100}) == (10, 20)
