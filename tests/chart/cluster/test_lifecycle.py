"""Install, upgrade, roll back, uninstall by the real helm on a real API server that has KubeRay's definitions."""

import json

import yaml

KINDS = ("deployments", "services", "configmaps", "networkpolicies", "serviceaccounts", "rayservices")
VALUES = {
    "podDisruptionBudget": {"enabled": False},  # policy/v1 came with 1.21
    "monitoring": {"enabled": False},  # Prometheus Operator's definitions are not there
}


def helm(cluster, verb, *args, values=None, check=True):
    file = cluster.chart / "values-multi-tenant.yaml"
    source = (str(cluster.chart), "--values", str(file), "--values", "-") if values is not None else ()
    stdin = json.dumps(VALUES | values) if values is not None else None
    return cluster.run("helm", "-n", "serving", verb, "rs", *source, *args, stdin=stdin, check=check)


def serve_count(cluster):
    config = yaml.safe_load(cluster.service()["spec"]["serveConfigV2"])
    return config["applications"][0]["args"]["config"]["replicas"]["count"]


def test_a_wrong_value_changes_nothing(cluster):
    refused = helm(cluster, "install", values={"gateway": {"minReplica": 1}}, check=False)
    assert "additional properties 'minReplica' not allowed" in refused.stderr
    assert cluster.names("deployments") == set()


def test_a_life(cluster):
    before = {kind: cluster.names(kind) for kind in KINDS}
    notes = helm(cluster, "install", values={}).stdout
    assert "helm -n serving test rs" in notes
    assert "-o go-template='{{index .data \"token\" | base64decode}}'" in notes
    made = {kind: cluster.names(kind) - before[kind] for kind in KINDS}
    assert made["rayservices"] == {"rayservice.ray.io/rs-reasonserve"}
    assert made["deployments"] == {"deployment.apps/rs-reasonserve-controller", "deployment.apps/rs-reasonserve-front"}
    assert len(made["networkpolicies"]) == 6
    assert serve_count(cluster) == 4

    # A change of the configuration alone leaves the pods alone: Ray Serve rolls its replicas inside the cluster.
    nodes = cluster.service()["spec"]["rayClusterConfig"]
    helm(cluster, "upgrade", values={"config": {"replicas": {"count": 6}}})
    assert serve_count(cluster) == 6
    assert cluster.service()["spec"]["rayClusterConfig"] == nodes

    helm(cluster, "rollback", "1")
    assert serve_count(cluster) == 4
    history = json.loads(helm(cluster, "history", "-o", "json").stdout)
    assert [(entry["revision"], entry["status"]) for entry in history][-1] == (3, "deployed")

    helm(cluster, "uninstall")
    assert {kind: cluster.names(kind) for kind in KINDS} == before


def test_the_claim_outlives_the_release(cluster):
    """And the next one of that name takes it over."""
    sqlite = {"controller": {"replicas": 1, "database": {"type": "sqlite", "postgresql": {"existingSecret": ""}}}}
    helm(cluster, "install", values=sqlite)
    helm(cluster, "uninstall")
    assert cluster.names("persistentvolumeclaims") == {"persistentvolumeclaim/rs-reasonserve-controller"}
    helm(cluster, "install", values=sqlite)
    helm(cluster, "uninstall")
