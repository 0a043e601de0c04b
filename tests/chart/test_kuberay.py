"""The RayService passes KubeRay's own definition, unknown fields rejected and CEL rules evaluated."""

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cel
import jsonschema
import pytest
import yaml

Schema = dict[str, Any]


def strict(schema: Schema) -> Schema:
    """Turns a structural schema into a JSON schema that rejects unknown fields."""
    made = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    made.pop("description", None)
    made.pop("format", None)
    if schema.get("x-kubernetes-int-or-string"):
        pattern = {"pattern": schema["pattern"]} if "pattern" in schema else {}
        return {"anyOf": [{"type": "integer"}, {"type": "string", **pattern}]}
    if "properties" in made:
        made["properties"] = {key: strict(value) for key, value in made["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(made.get(key), dict):
            made[key] = strict(made[key])
    return made


def broken_rules(schema: Schema, value: Any, old: Any = None, path: str = "") -> Iterator[str]:
    """Yields the message of each CEL rule that a value breaks; rules about a change need the old value."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" in rule["rule"] and old is None:
            continue
        if not cel.evaluate(rule["rule"], {"self": value, "oldSelf": old}):
            yield f"{path}: {rule['message']}"
    if isinstance(value, dict):
        for key, below in value.items():
            known = schema.get("properties", {}).get(key) or schema.get("additionalProperties") or {}
            before = old.get(key) if isinstance(old, dict) else None
            yield from broken_rules(known, below, before, f"{path}.{key}") if isinstance(known, dict) else ()
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from broken_rules(schema.get("items", {}), below, None, f"{path}[{index}]")


@cache
def definition(folder: Path) -> Schema:
    (file,) = folder.glob("ray.io_rayservices*.yaml")
    document = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)
    (version,) = [version for version in document["spec"]["versions"] if version["name"] == "v1"]
    schema: Schema = version["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return schema


def faults(folder: Path, document: Any, old: Any = None) -> list[str]:
    schema = definition(folder)
    errors = validator(folder).iter_errors(document)
    found = [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:160]}" for error in errors]
    return [*found, *broken_rules(schema, document, old)]


@cache
def validator(folder: Path) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(strict(definition(folder)))


@pytest.fixture
def service(renders) -> Any:
    return copy.deepcopy(renders["values-h200.yaml"].one("RayService"))


def test_rendered_services_pass(kuberay, render):
    assert faults(kuberay, render.one("RayService")) == []


def test_every_strategy_passes(kuberay, chart):
    incremental = {"strategy": "NewClusterWithIncrementalUpgrade", "incremental": {"gatewayClassName": "istio"}}
    values = {"upgrade": incremental, "ray": {"tokenAuthentication": True}, "images": {"pullSecrets": ["registry"]}}
    assert faults(kuberay, chart.render(values).one("RayService")) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: s["rayClusterConfig"]["headGroupSpec"].update(rayStartParms={}), "rayStartParms"),
        (lambda s: s["rayClusterConfig"]["workerGroupSpecs"][0].update(maxReplicas="four"), "'four'"),
        (lambda s: s["rayClusterConfig"].pop("headGroupSpec"), "'headGroupSpec' is a required property"),
        (lambda s: s["rayClusterConfig"]["autoscalerOptions"].update(version="v3"), "'v3' is not one of"),
        (lambda s: s.update(managedBy="nobody"), "managedBy field value must be either"),
    ],
    ids=["unknown", "type", "missing", "choice", "cel"],
)
def test_what_is_wrong_is_seen(kuberay, service, change, expected):
    change(service["spec"])
    assert expected in "\n".join(faults(kuberay, service))


def test_a_rule_about_a_change_is_evaluated(kuberay, service):
    old, new = copy.deepcopy(service), copy.deepcopy(service)
    old["spec"]["managedBy"] = "ray.io/kuberay-operator"
    new["spec"]["managedBy"] = "kueue.x-k8s.io/multikueue"
    assert faults(kuberay, new, old) == [".spec.managedBy: the managedBy field is immutable"]
    assert faults(kuberay, old, old) == []
