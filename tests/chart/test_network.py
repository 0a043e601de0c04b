"""Who may reach which port: the rendered policies evaluated as Kubernetes would, as a table.

Kubernetes: https://kubernetes.io/docs/concepts/services-networking/network-policies/. Policies add up; a pod that one
selects for a direction is closed in it but for the rules; a connection needs the leave of both of its ends.
"""

import ipaddress
from dataclasses import dataclass, field
from typing import Any

import pytest

NAMESPACE = "serving"


@dataclass(frozen=True)
class Party:
    """A pod, or an address outside the cluster."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = NAMESPACE
    namespace_labels: dict[str, str] = field(default_factory=dict)
    address: str = "10.1.0.1"

    @property
    def its_namespace(self) -> dict[str, str]:
        return {"kubernetes.io/metadata.name": self.namespace} | self.namespace_labels


def own(component: str) -> Party:
    labels = {"name": "reasonserve", "instance": "rs", "component": component}
    return Party({f"app.kubernetes.io/{key}": value for key, value in labels.items()})


OUTSIDE = {
    "client": Party({"app": "chat"}, "team-a", {"reasonserve/client": "true"}),
    "stranger": Party({"app": "x"}, "team-b"),
    "neighbour": Party({"app": "x"}, NAMESPACE),
    "internet": Party({}, "", {}, "203.0.113.9"),
    "office": Party({}, "", {}, "192.0.2.9"),
    "operator": Party({"app": "operator-shell"}, "platform"),
    "platform pod": Party({"app": "x"}, "platform"),
    "ray operator": Party({"app.kubernetes.io/name": "kuberay-operator"}, "kuberay"),
    "prometheus": Party({"app": "prometheus"}, "monitoring"),
    "dns": Party({"k8s-app": "kube-dns"}, "kube-system"),
    "collector": Party({"app": "otel"}, "observability"),
    "postgres": Party({"app": "postgres"}, "postgres"),
    "other release": Party(own("gateway").labels | {"app.kubernetes.io/instance": "other"}),
}
PARTIES = OUTSIDE | {name: own(name) for name in ("head", "gateway", "replica", "controller", "front", "test")}


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    plain = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    operators = {
        "In": lambda value, values: value in values,
        "NotIn": lambda value, values: value not in values,
        "Exists": lambda value, _: value is not None,
        "DoesNotExist": lambda value, _: value is None,
    }
    conditions = selector.get("matchExpressions", [])
    return plain and all(operators[c["operator"]](labels.get(c["key"]), c.get("values")) for c in conditions)


def is_peer(peer: dict[str, Any], party: Party) -> bool:
    if "ipBlock" in peer:
        address, block = ipaddress.ip_address(party.address), peer["ipBlock"]
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(cidr) for cidr in block.get("except", []))
    if party.namespace == "":
        return False
    namespace = peer.get("namespaceSelector")
    at_home = party.namespace == NAMESPACE if namespace is None else matches(namespace, party.its_namespace)
    return at_home and matches(peer.get("podSelector", {}), party.labels)


def allowed(policies: list[dict[str, Any]], direction: str, pod: Party, other: Party, port: int, protocol: str) -> bool:
    """Returns whether a pod's own end of a connection is open."""
    rules = {"Ingress": ("ingress", "from"), "Egress": ("egress", "to")}
    section, side = rules[direction]
    chosen = [
        policy["spec"]
        for policy in policies
        if pod.namespace == NAMESPACE
        and direction in policy["spec"]["policyTypes"]
        and matches(policy["spec"]["podSelector"], pod.labels)
    ]
    return not chosen or any(
        ("ports" not in rule or any((p.get("protocol"), p["port"]) == (protocol, port) for p in rule["ports"]))
        and (side not in rule or any(is_peer(peer, other) for peer in rule[side]))
        for spec in chosen
        for rule in spec.get(section) or []
    )


def open_to(render: Any, source: str, target: str, port: int, protocol: str = "TCP") -> bool:
    policies = render.of_kind("NetworkPolicy")
    start, end = PARTIES[source], PARTIES[target]
    leaves = allowed(policies, "Egress", start, end, port, protocol)
    return leaves and allowed(policies, "Ingress", end, start, port, protocol)


PORTS = {
    "front": (9443, 9080),
    "gateway": (9000, 8000, 6379, 8265, 8080, 10001, 40000, 52365),
    "replica": (9000, 8000, 8080, 10001, 40000, 52365),
    "head": (6379, 8265, 8080, 8000, 9000, 10001, 52365),
    "controller": (9100, 9101, 22),
    "test": (80,),
}
RAY = {"head", "gateway", "replica"}
MAY = {
    ("front", 9443): {"client", "office"},
    ("gateway", 9000): RAY | {"front", "test"},
    ("gateway", 8000): RAY | {"front"},
    ("replica", 9000): RAY | {"front", "test"},
    ("replica", 8000): RAY | {"front"},
    ("gateway", 8080): RAY | {"prometheus"},
    ("replica", 8080): RAY | {"prometheus"},
    ("head", 8080): RAY | {"prometheus"},
    ("head", 8265): RAY | {"ray operator"},
    ("controller", 9100): {"gateway", "replica", "test", "operator"},
    ("controller", 9101): {"prometheus"},
}
"""Of the several teams' values; between Ray's nodes every port is open, and any other that is not here is closed."""


@pytest.mark.parametrize(("target", "port"), [(name, port) for name, ports in PORTS.items() for port in ports])
def test_who_reaches_which_port(renders, target, port):
    """Also where only the receiving end is closed: a caller's own policy is no protection."""
    render = renders["values-multi-tenant.yaml"]
    policies = render.of_kind("NetworkPolicy")
    others = {name: party for name, party in PARTIES.items() if name != target}
    expected = MAY.get((target, port), RAY if target in RAY else set()) - {target}
    arrive = {n for n, p in others.items() if allowed(policies, "Ingress", PARTIES[target], p, port, "TCP")}
    assert arrive == expected
    assert {name for name in others if open_to(render, name, target, port)} == expected


LEAVES = {
    ("dns", 53): RAY | {"controller", "front", "test"},
    ("collector", 4317): RAY | {"controller", "test"},  # the front makes no spans
    ("postgres", 5432): {"controller"},
    ("internet", 443): {"head", "replica"},  # the API server and the hub
    ("internet", 6443): {"head"},
    ("internet", 80): set(),
    ("stranger", 443): {"head", "replica"},
    ("stranger", 8080): set(),
}


@pytest.mark.parametrize(("target", "port"), LEAVES)
def test_who_may_leave(renders, target, port):
    render = renders["values-multi-tenant.yaml"]
    parts = [name for name in PARTIES if name not in OUTSIDE]
    assert {name for name in parts if open_to(render, name, target, port)} == LEAVES[target, port]


def test_names_are_asked_for_by_udp(renders):
    assert open_to(renders["values-multi-tenant.yaml"], "replica", "dns", 53, "UDP")


def test_without_a_front_clients_reach_the_gateways(renders):
    render = renders["values.yaml"]
    assert {name for name in OUTSIDE if open_to(render, name, "gateway", 9000)} == {
        name for name in OUTSIDE if OUTSIDE[name].namespace
    }
    assert not any(open_to(render, name, "head", 10001) for name in OUTSIDE)


def test_a_folder_closes_the_way_to_the_hub(renders):
    assert not open_to(renders["values-h200.yaml"], "replica", "internet", 443)
    assert open_to(renders["values.yaml"], "replica", "internet", 443)


def test_another_releases_controller(chart):
    values = {"controller": {"enabled": False, "endpoint": "shared-controller.kv.svc:9200"}}
    render = chart.render(values)
    assert open_to(render, "replica", "stranger", 9200)
    assert not open_to(render, "replica", "stranger", 9100)


def test_no_policy_opens_everything(chart):
    render = chart.render({"networkPolicy": {"enabled": False}})
    assert open_to(render, "internet", "head", 10001)


def test_every_pod_is_under_a_policy(render):
    for template in render.pods().values():
        labels = template["metadata"]["labels"]
        chosen = [p for p in render.of_kind("NetworkPolicy") if matches(p["spec"]["podSelector"], labels)]
        assert [p["spec"]["policyTypes"] for p in chosen] == [["Ingress", "Egress"]]
