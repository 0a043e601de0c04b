"""Every core object passes the strict schema of each supported Kubernetes release, and helm lint finds nothing."""

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from kubernetes_validate.utils import all_versions
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

OLDEST = (1, 29)
VERSIONS = sorted({v for v in all_versions() if tuple(map(int, v.split(".")[:2])) >= OLDEST})
FOREIGN = {"RayService", "PodMonitor", "ServiceMonitor"}
"""Kinds that other operators define."""
CORE = {
    "ConfigMap", "Deployment", "NetworkPolicy", "PersistentVolumeClaim", "Pod", "PodDisruptionBudget", "Service",
    "ServiceAccount",
}  # fmt: skip


@cache
def registry(version: str) -> Registry:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    definitions = json.loads((folder / "_definitions.json").read_text())
    return Registry().with_resource("/api/_definitions.json", Resource.from_contents(definitions, DRAFT4))


@cache
def validator(version: str, kind: str, api_version: str) -> jsonschema.Draft4Validator:
    group, _, release = api_version.rpartition("/")
    name = f"{kind}-{group.split('.')[0]}-{release}" if group else f"{kind}-{release}"
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    schema = json.loads((folder / f"{name.lower()}.json").read_text())
    return jsonschema.Draft4Validator(schema, registry=registry(version))


def faults(version: str, document: dict[str, Any]) -> list[str]:
    found = validator(version, document["kind"], document["apiVersion"]).iter_errors(document)
    return [f"{document['kind']} {'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in found]


def pods(render: Any) -> Iterator[dict[str, Any]]:
    """Ray's pod templates as pods, which the core schema knows."""
    for name, template in render.pods().items():
        metadata = {"name": name} | template["metadata"]
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


@pytest.fixture(scope="module")
def incremental(chart) -> Any:
    """The strategy that no values file has; it adds a Service."""
    strategy = {"strategy": "NewClusterWithIncrementalUpgrade", "incremental": {"gatewayClassName": "istio"}}
    return chart.render({"upgrade": strategy})


def test_the_oldest_release_is_the_charts(chart):
    assert 'kubeVersion: ">=1.29.0-0"' in (chart.folder / "Chart.yaml").read_text()
    assert len(VERSIONS) >= 9


@pytest.mark.parametrize("version", VERSIONS)
def test_core_objects(renders, incremental, version):
    every = (*renders.values(), incremental)
    documents = [document for render in every for document in (*render.documents, *pods(render))]
    unique = {json.dumps(document, sort_keys=True): document for document in documents}
    core = [document for document in unique.values() if document["kind"] not in FOREIGN]
    assert {document["kind"] for document in core} == CORE
    assert [fault for document in core for fault in faults(version, document)] == []


def test_the_schemas_see_what_is_wrong(renders):
    controller = renders["values.yaml"].one("Deployment", "-controller")
    wrong = json.loads(json.dumps(controller))
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePulPolicy"] = "Always"
    wrong["spec"]["replicas"] = "two"
    text = "\n".join(faults(VERSIONS[-1], wrong))
    assert "imagePulPolicy" in text
    assert "'two'" in text


@pytest.mark.parametrize("file", ["values.yaml", "values-local.yaml", "values-h200.yaml", "values-multi-tenant.yaml"])
def test_lint(chart, file):
    secret = ("--set", "adminToken.existingSecret=reasonserve-admin")
    done = chart.helm("lint", "--strict", str(chart.folder), "--values", str(chart.folder / file), *secret)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 chart(s) failed" in done.stdout


def test_names_are_unique_and_in_the_release(renders):
    for render in renders.values():
        names = [(document["kind"], document["metadata"]["name"]) for document in render.documents]
        assert len(names) == len(set(names))
        assert {document["metadata"]["namespace"] for document in render.documents} == {"serving"}


def test_what_refers_to_another_object_finds_it(renders):
    """Service accounts, ConfigMaps and claims that the chart makes; Secrets are the operator's."""
    for render in renders.values():
        names = {(document["kind"], document["metadata"]["name"]) for document in render.documents}
        for template in render.pods().values():
            assert ("ServiceAccount", template["spec"]["serviceAccountName"]) in names
            for volume in template["spec"].get("volumes", []):
                if "configMap" in volume:
                    assert ("ConfigMap", volume["configMap"]["name"]) in names
            mounted = [m["name"] for c in template["spec"]["containers"] for m in c.get("volumeMounts", [])]
            assert set(mounted) <= {volume["name"] for volume in template["spec"].get("volumes", [])}


def test_selectors_select_their_pods_alone(renders):
    for render in renders.values():
        labels = {name: template["metadata"]["labels"] for name, template in render.pods().items()}
        for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
            for document in render.of_kind(kind):
                spec = document["spec"]
                selector = spec.get("podSelector", spec.get("selector"))
                wanted = selector.get("matchLabels", selector).items()
                chosen = {own["app.kubernetes.io/component"] for own in labels.values() if wanted <= own.items()}
                assert len(chosen) == 1, document["metadata"]["name"]
