"""Pods pass the Pod Security Standard "restricted", hold no secret, and say what Ray's own autoscaler reads."""

import re
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from reasonserve.config import ServiceConfig
from reasonserve.stack.serving import ONE_LOOP, TRANSPORT, message_limit
from reasonserve.telemetry.settings import node_environment

ALLOWED_VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}


def containers(template: dict[str, Any]) -> list[dict[str, Any]]:
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def test_restricted(render):
    """Every control of the standard: https://kubernetes.io/docs/concepts/security/pod-security-standards/."""
    for template in render.pods().values():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        # Kubernetes' variables for Services would begin with REASONSERVE_, as the settings do.
        assert spec["enableServiceLinks"] is False
        assert {key for volume in spec["volumes"] for key in volume} - {"name"} <= ALLOWED_VOLUMES
        for container in containers(template):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["readOnlyRootFilesystem"] is True
            assert "hostPort" not in str(container.get("ports"))
    assert render.cluster["autoscalerOptions"]["securityContext"]["allowPrivilegeEscalation"] is False


def test_every_container_says_what_it_needs(render):
    for template in render.pods().values():
        for container in containers(template):
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            amounts = [container["resources"][kind]["memory"] for kind in ("requests", "limits")]
            asked, most = (int(amount[:-2]) << {"Mi": 20, "Gi": 30}[amount[-2:]] for amount in amounts)
            assert asked <= most


def test_only_the_head_may_call_kubernetes(render):
    mounts = {name: template["spec"]["automountServiceAccountToken"] for name, template in render.pods().items()}
    assert {name for name, mounted in mounts.items() if mounted} == {"head"}
    accounts = {a["metadata"]["name"]: a["automountServiceAccountToken"] for a in render.of_kind("ServiceAccount")}
    assert {name for name, mounted in accounts.items() if mounted} == {"rs-reasonserve-head"}
    assert not [d for d in render.documents if d["kind"] in ("Role", "ClusterRole", "RoleBinding", "Secret")]


def test_the_head_holds_no_token(render):
    assert "secret" not in str(render.pods()["head"]["spec"]["volumes"])


def test_secrets_are_named_and_not_held(chart):
    text = chart.render(file="values-multi-tenant.yaml").text
    assert "kind: Secret" not in text
    assert not re.search(r"postgresql://", text)
    assert "secretKeyRef" in text


def test_ray_pods_have_no_label_that_a_release_changes(render):
    """A changed pod template makes Ray's operator build a new cluster."""
    for name, template in render.pods().items():
        if name not in ("controller", "front", "test"):
            assert not {"helm.sh/chart", "app.kubernetes.io/version"} & template["metadata"]["labels"].keys()


@pytest.mark.parametrize(
    ("config", "new_nodes"),
    [
        ({"engine": {"pool_slots": 8192}}, set()),
        ({"replicas": {"scaling": {"interval_s": 2}}}, set()),
        ({"controller": {"lease_ttl_s": 20}}, set()),
        # What was fetched when the pod began is all that its replicas find.
        ({"model": "/models/qwen3-14b"}, {"h200"}),
        ({"telemetry": {"sampling_ratio": 0.5}}, {"head", "gateway", "h200"}),
        ({"replicas": {"drain_s": 99}}, {"gateway", "h200"}),
    ],
)
def test_which_configuration_needs_new_nodes(chart, renders, config, new_nodes):
    """Ray's operator builds a new cluster when a pod's template changes, and only then."""
    before, after = renders["values-h200.yaml"].pods(), chart.render({"config": config}, file="values-h200.yaml").pods()
    assert {name for name in ("head", "gateway", "h200") if before[name] != after[name]} == new_nodes


@pytest.mark.parametrize("pod", ["head", "gateway", "h200"])
def test_ray_nodes_have_the_variables_of_a_local_stack(renders, pod):
    config = {"telemetry": {"otlp_endpoint": "http://otel-collector.observability.svc:4317", "sampling_ratio": 0.05}}
    service = ServiceConfig.model_validate(config)
    expected = node_environment(service.telemetry) | message_limit(service.gateway)
    expected |= {TRANSPORT: "1", **dict.fromkeys(ONE_LOOP, "0")}
    (container,) = renders["values-h200.yaml"].pods()[pod]["spec"]["containers"]
    env = {item["name"]: item.get("value") for item in container["env"]}
    given = {name: env.get(name) for name in expected}
    assert {name: str(value).casefold() for name, value in given.items()} == {
        name: value.casefold() for name, value in expected.items()
    }
    assert len(env) == len(container["env"])


def test_every_pod_of_ours_knows_the_collector(renders):
    """The front is HAProxy without a tracer, and a copy of tokens has nothing to tell."""
    for file in ("values-h200.yaml", "values-multi-tenant.yaml"):
        render = renders[file]
        endpoint = yaml.safe_load(render.one("ConfigMap", "-config")["data"]["config.yaml"])["telemetry"][
            "otlp_endpoint"
        ]
        silent = set()
        for name, template in render.pods().items():
            for container in containers(template):
                env = {item["name"]: item.get("value") for item in container.get("env", ())}
                if env.get("REASONSERVE_OTLP_ENDPOINT") != endpoint:
                    silent.add((name, container["name"]))
        assert silent <= {("front", "front"), ("controller", "tokens")}


def test_what_rays_autoscaler_reads(renders):
    """Ray's own code, as it runs in the head's sidecar, on our resource."""
    cluster = renders["values-multi-tenant.yaml"].cluster
    ray_cluster = {"metadata": {"name": "c", "namespace": "serving"}, "spec": cluster}
    config = _derive_autoscaling_config_from_ray_cr(ray_cluster)
    types = config["available_node_types"]
    assert {name: (t["min_workers"], t["max_workers"]) for name, t in types.items()} == {
        "headgroup": (0, 0), "gateway": (3, 12), "reserved": (2, 4), "spot": (0, 16)
    }  # fmt: skip
    resources = {name: t["resources"] for name, t in types.items()}
    assert resources["headgroup"]["CPU"] == 0
    assert resources["gateway"]["reasonserve_gateway"] == 1
    assert "GPU" not in resources["gateway"]
    assert (resources["spot"]["GPU"], resources["spot"]["reasonserve_replica"]) == (1, 1)
    assert types["spot"]["idle_timeout_s"] == 120.0


def test_evictions_leave_what_the_minimum_allows(renders):
    budgets = {
        file: {b["metadata"]["name"].rpartition("-")[2]: b["spec"] for b in render.of_kind("PodDisruptionBudget")}
        for file, render in renders.items()
    }
    assert {name: spec["minAvailable"] for name, spec in budgets["values-h200.yaml"].items()} == {
        "gateway": 1, "replica": 1
    }  # fmt: skip
    assert budgets["values-local.yaml"] == {}
    assert budgets["values-multi-tenant.yaml"]["front"]["maxUnavailable"] == 1


def test_the_controllers_tokens_are_copied_where_only_it_reads(renders):
    spec = renders["values-multi-tenant.yaml"].pods()["controller"]["spec"]
    (copy,) = spec["initContainers"]
    assert copy["command"] == ["install", "-m", "0600", "-t", "/run/reasonserve"]
    assert copy["args"] == ["/etc/reasonserve/secrets/admin", "/etc/reasonserve/secrets/operator"]


def test_ports_follow_the_strategy(chart):
    """Ray's operator routes an incremental upgrade to the port named "serve"; ours is gRPC."""
    strategy = {"strategy": "NewClusterWithIncrementalUpgrade", "incremental": {"gatewayClassName": "istio"}}
    for values, name in (({}, "serve-grpc"), ({"upgrade": strategy}, "serve")):
        (container,) = chart.render(values).pods()["head"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports[name] == 9000


def test_each_strategy_has_a_service_of_gateways(chart):
    """In an incremental upgrade Ray's operator's own are named after clusters, which come and go."""
    strategy = {"strategy": "NewClusterWithIncrementalUpgrade", "incremental": {"gatewayClassName": "istio"}}
    render = chart.render({"upgrade": strategy})
    (argument,) = [a for a in render.pods()["test"]["spec"]["containers"][0]["args"] if a.startswith("--gateway=")]
    assert argument == "--gateway=rs-reasonserve-direct.serving.svc:9000"
    spec = render.one("Service", "-direct")["spec"]
    assert spec["selector"].items() <= render.pods()["gateway"]["metadata"]["labels"].items()
    assert not spec["selector"].items() <= render.pods()["gpu"]["metadata"]["labels"].items()
    assert [(port["port"], port["appProtocol"]) for port in spec["ports"]] == [(9000, "kubernetes.io/h2c")]
    plain = chart.render()
    assert "-direct" not in plain.text
    assert plain.one("RayService")["spec"]["serveService"]["metadata"]["name"] == "rs-reasonserve-serve-svc"


def test_large_messages_raise_the_proxys_limit(chart):
    (container,) = chart.render({"config": {"gateway": {"max_input_bytes": 8 << 20}}}).pods()["gateway"]["spec"][
        "containers"
    ]
    env = {item["name"]: item.get("value") for item in container["env"]}
    limit = message_limit(ServiceConfig.model_validate({"gateway": {"max_input_bytes": 8 << 20}}).gateway)
    assert limit.items() <= env.items()


def test_ray_is_told_whether_it_asks_for_a_token(chart):
    """Left alone, a Ray node decides by what it finds in its home."""
    for asks, options, mode in ((True, {"mode": "token"}, None), (False, None, "disabled")):
        render = chart.render({"ray": {"tokenAuthentication": asks}})
        assert render.cluster.get("authOptions") == options
        (container,) = render.pods()["head"]["spec"]["containers"]
        assert {item["name"]: item.get("value") for item in container["env"]}.get("RAY_AUTH_MODE") == mode


def test_every_ray_node_has_the_variables_that_are_added(chart):
    pods = chart.render({"ray": {"environment": {"NCCL_DEBUG": "INFO"}}}).pods()
    for name in ("head", "gateway", "gpu"):
        assert {"name": "NCCL_DEBUG", "value": "INFO"} in pods[name]["spec"]["containers"][0]["env"]
