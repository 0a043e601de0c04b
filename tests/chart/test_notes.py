"""What an installation prints; helm renders it without a cluster."""

import re

import pytest

UNUSED = "GPUs are set aside and not used"


@pytest.mark.parametrize(("file", "warns"), [("values-h200.yaml", True), ("values-local.yaml", False)])
def test_gpus_that_the_engine_does_not_use_are_told_of(chart, file, warns):
    done = chart.helm(
        *("install", "rs", str(chart.folder), "--dry-run=client", "--values", str(chart.folder / file)),
        *("--set", "adminToken.existingSecret=reasonserve-admin"),
    )
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "reasonserve tenant create" in notes
    assert (UNUSED in notes) is warns


def test_the_named_services_are_made(chart):
    done = chart.helm(
        *("install", "rs", str(chart.folder), "--dry-run=client", "--set", "adminToken.existingSecret=a"),
        *("--set", "upgrade.strategy=NewClusterWithIncrementalUpgrade,upgrade.incremental.gatewayClassName=istio"),
    )
    manifest, _, notes = done.stdout.partition("NOTES:")
    for name in re.findall(r"port-forward service/(\S+)", notes):
        assert f"kind: Service\nmetadata:\n  name: {name}\n" in manifest
