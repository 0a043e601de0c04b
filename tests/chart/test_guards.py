"""A wrong value is refused with its path, what is allowed and what to do; nothing is rendered then."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

SECRET = {"adminToken": {"existingSecret": "admin"}}
POSTGRES = {"database": {"type": "postgresql", "postgresql": {"existingSecret": "db"}}}
INCREMENTAL = {"strategy": "NewClusterWithIncrementalUpgrade", "incremental": {"gatewayClassName": "istio"}}
BIG_STEP = {"gatewayClassName": "i", "stepSizePercent": 9, "maxSurgePercent": 4}
FRONT = {"enabled": True, "tlsSecret": "front-tls"}
VOLUME = {"volume": {"type": "persistentVolumeClaim", "claimName": "models"}}


def group(**values):
    return {"replicaGroups": [{"name": "gpu", **values}]}


def policy(**values):
    return {"networkPolicy": values}


CONTRADICTIONS = [
    ({"adminToken": {"existingSecret": ""}}, "adminToken.existingSecret is empty", "create secret generic"),
    ({"fullnameOverride": "a" * 48}, "has 48 characters; Ray's operator allows 47", "set fullnameOverride"),
    ({"controller": {"endpoint": "c:9100"}}, 'controller.endpoint is "c:9100"', "Empty the endpoint"),
    ({"controller": {"enabled": False}}, "controller.endpoint is empty", "Set controller.endpoint=HOST:PORT"),
    ({"controller": {"replicas": 2}}, "the file is in the volume of one pod", "Set controller.replicas=1"),
    ({"controller": {"database": {"type": "postgresql"}}}, "existingSecret is empty", "Create one with the key"),
    (
        {"controller": {"database": {"postgresql": {"existingSecret": "db"}}}},
        "type is sqlite, which would leave it unused",
        "Set controller.database.type=postgresql",
    ),
    (
        {"controller": {"database": {"sqlite": {"persistent": False, "existingClaim": "c"}}}},
        "persistent is false",
        "Set persistent=true",
    ),
    ({"controller": {"tls": {"clientSecret": "c"}}}, "need a controller with TLS", "Name its Secret"),
    (
        {"config": {"controller": {"database_url": "sqlite:///x"}}},
        "config.controller.database_url is set",
        "existingSecret instead",
    ),
    ({"config": {"controller": {"host": "0.0.0.0"}}}, "config.controller.host", "Remove the key"),
    ({"config": {"gateway": {"entrance": "gateway"}}}, "config.gateway.entrance", "Set it to proxy"),
    ({"config": {"telemetry": {"trace_file": "/tmp/t"}}}, "config.telemetry.trace_file", "otlp_endpoint"),
    ({"config": {"telemetry": {"log_file": "/tmp/l"}}}, "config.telemetry.log_file", "Remove the key"),
    ({"config": {"front": {"tls_cert": "/tmp/c"}}}, "config.front.tls_cert is set", "set front.tlsSecret"),
    ({"gateway": {"minReplicas": 5}}, "gateway.minReplicas is 5 and gateway.maxReplicas is 4", "Raise maxReplicas"),
    (group(minReplicas=3, maxReplicas=2), 'group "gpu" has minReplicas 3 and maxReplicas 2', "Raise maxReplicas"),
    (group(gpusPerPod=0), "no replica would ever fit", "Set gpusPerPod"),
    ({"config": {"replicas": {"num_gpus": 0}}}, "the GPUs would stand idle", "Set config.replicas.num_gpus"),
    (group(replicasPerPod=2), "they do not fit", "Lower replicasPerPod"),
    (
        {"replicaGroups": [{"name": "gpu"}, {"name": "gpu"}]},
        'the name "gpu" twice',
        "Rename the group",
    ),
    (group(name="gateway"), 'the name "gateway" twice, or it is the chart\'s own', "Rename the group"),
    ({"config": {"replicas": {"count": 2}}}, "replicaGroups hold 1 at most", "Raise maxReplicas of a group"),
    ({"config": {"replicas": {"scaling": {"max_count": 2}}}}, "up to 2 replicas", "Raise maxReplicas of a group"),
    (
        {"config": {"replicas": {"count": 3, "scaling": {"max_count": 2}}}},
        "config.replicas.scaling.max_count is 2 and config.replicas.count is 3",
        "Raise max_count",
    ),
    ({"config": {"replicas": {"scaling": {"window_s": 1}}}}, "the window must be longer", "Raise window_s"),
    ({"config": {"model": "/models/m"}}, "model.volume.type is emptyDir, which begins empty", "Set model.volume.type"),
    ({"config": {"model": "/srv/m"}, "model": VOLUME}, 'mounted at "/models"', "set model.mountPath"),
    (
        {"config": {"model": "/models/m"}, "model": VOLUME | {"hubToken": {"existingSecret": "hf"}}},
        "which is not fetched",
        "set config.model to an id of the hub",
    ),
    ({"model": {"volume": {"claimName": "c"}}}, 'claimName is "c"', "Set both, or neither"),
    ({"model": {"volume": {"type": "hostPath"}}}, 'hostPath is ""', "Set both, or neither"),
    ({"upgrade": {"strategy": INCREMENTAL["strategy"]}}, "gatewayClassName is empty", "Name its class"),
    ({"upgrade": INCREMENTAL, "front": FRONT}, "must come through the Gateway", "Set front.enabled=false"),
    (
        {"upgrade": INCREMENTAL | {"incremental": BIG_STEP}},
        "stepSizePercent is 9 and maxSurgePercent is 4",
        "Lower the step",
    ),
    ({"upgrade": {"incremental": {"gatewayClassName": "i"}}}, "which makes no Gateway", "or empty the class"),
    ({"upgrade": {"drainSeconds": 10}}, "the old nodes would go before their streams end", "Raise upgrade"),
    ({"front": {"enabled": True}}, "front.tlsSecret is empty", "Create a Secret with tls.crt"),
    ({"front": {"tlsSecret": "s"}}, "calls would stay in plain text", "Set front.enabled=true"),
    (
        {"front": FRONT, "gateway": {"service": {"type": "LoadBalancer"}}},
        "clients would pass the front by",
        "Set gateway.service.type=ClusterIP",
    ),
    ({"front": {**FRONT, "healthPort": 9443}}, "are both 9443", "Change one"),
    ({"config": {"controller": {"metrics_port": 9100}}}, "are both 9100", "Change one"),
    ({"config": {"gateway": {"port": 8265}}}, "config.gateway.port is 8265", "Ray's dashboard"),
    ({"config": {"gateway": {"http_port": 12000}}}, "Ray's workers take 10002 to 19999", "outside that range"),
    ({"config": {"gateway": {"http_port": 9000}}}, "is 9000, which is the port of config.gateway", "Choose another"),
    ({"config": {"telemetry": {"metrics_port": None}}}, "config.telemetry.metrics_port is null", "Set a port"),
    (policy(clients=[]), "networkPolicy.clients is empty; nobody could call", "Name who may"),
    (policy(rayOperator=[]), "networkPolicy.rayOperator is empty", "Name its pods"),
    (policy(dns=[]), "networkPolicy.dns is empty", "Name the cluster's DNS"),
    (policy(kubernetesApi=[]), "networkPolicy.kubernetesApi is empty", "Name the API server's addresses"),
    (policy(modelHub=[]), "networkPolicy.modelHub is empty", "serve a folder of a volume"),
    (
        {"config": {"telemetry": {"otlp_endpoint": "http://o:4317"}}, **policy(collector=[])},
        "no trace would arrive",
        "Name the collector",
    ),
    ({"controller": POSTGRES, **policy(database=[])}, "networkPolicy.database is empty", "Name the database"),
    (
        {"controller": {"enabled": False, "endpoint": "c:9100"}, **policy(externalController=[])},
        "networkPolicy.externalController is empty",
        "Name the controller",
    ),
    ({"monitoring": {"enabled": True}, **policy(monitoring=[])}, "no metric could be read", "Name who may"),
    ({"ray": {"environment": {"HOME": "/x"}}}, "ray.environment sets HOME", "Remove it"),
    ({"commonLabels": {"app.kubernetes.io/name": "x"}}, "commonLabels has app.kubernetes.io/name", "another label"),
]  # fmt: skip

MISSPELT = [
    ({"replicaGroup": []}, "additional properties 'replicaGroup' not allowed"),
    ({"config": {"engine": {"pool_slot": 1}}}, "at '/config/engine': additional properties 'pool_slot' not allowed"),
    ({"config": {"engine": {"pool_slots": 1}}}, "at '/config/engine/pool_slots'"),
    ({"config": {"engine": {"dtype": "int8"}}}, "at '/config/engine/dtype'"),
    ({"config": {"replicas": {"num_gpus": -1}}}, "at '/config/replicas/num_gpus'"),
    ({"config": {"telemetry": {"otlp_endpoint": "otel:4317"}}}, "at '/config/telemetry/otlp_endpoint'"),
    ({"controller": {"replicas": "one"}}, "at '/controller/replicas': got string, want integer"),
    ({"controller": {"database": {"type": "mysql"}}}, "at '/controller/database/type'"),
    ({"controller": {"resources": {"limits": {"memory": "1 GB"}}}}, "at '/controller/resources/limits/memory'"),
    (group(maxReplica=2), "at '/replicaGroups/0': additional properties 'maxReplica' not allowed"),
    (group(name="GPU"), "at '/replicaGroups/0/name'"),
    ({"replicaGroups": []}, "at '/replicaGroups': minItems"),
    (group(tolerations=[{"keys": "a"}]), "at '/replicaGroups/0/tolerations/0'"),
    (policy(clients=[{"podSelectors": {}}]), "at '/networkPolicy/clients/0'"),
    ({"images": {"engine": {"digest": "sha256:abc"}}}, "at '/images/engine/digest'"),
    ({"upgrade": {"strategy": "Rolling"}}, "at '/upgrade/strategy'"),
    ({"ray": {"version": "latest"}}, "at '/ray/version'"),
    ({"front": {"healthPort": 80}}, "at '/front/healthPort': minimum"),
    ({"podSecurity": {"runAsUser": 0}}, "at '/podSecurity/runAsUser': minimum"),
]


@pytest.fixture(scope="module")
def refusals(chart):
    """What helm says to each contradiction, and to a name that a digit leads."""

    def refused(values):
        done = chart.try_render(SECRET | values, sets=())
        assert done.returncode != 0
        assert done.stdout == ""
        return done.stderr

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(refused, [case[0] for case in CONTRADICTIONS]))
    digit = chart.helm("template", "7", str(chart.folder), "--set", "adminToken.existingSecret=admin")
    return [*said, digit.stderr]


@pytest.mark.parametrize("index", range(len(CONTRADICTIONS)), ids=[case[1][:40] for case in CONTRADICTIONS])
def test_contradictions(refusals, index):
    _, given, remedy = CONTRADICTIONS[index]
    assert given in refusals[index]
    assert remedy in refusals[index]


def test_a_digit_cannot_lead_the_name(refusals):
    assert 'The name "7-reasonserve" begins with a digit' in refusals[-1]


def test_every_refusal_of_the_templates_is_provoked(chart, refusals):
    templates = "".join(path.read_text() for path in (chart.folder / "templates").rglob("*.*"))
    messages = re.findall(r'{{- fail \(?(?:printf )?"((?:[^"\\]|\\.)*)"', templates)
    assert len(messages) == templates.count("{{- fail ")
    patterns = [
        re.sub(r"%[qdsv]", ".*", re.escape(message.replace('\\"', '"')).replace("%", "%")) for message in messages
    ]
    said = "\n".join(refusals)
    assert [pattern for pattern in patterns if not re.search(pattern, said)] == []


@pytest.mark.parametrize(("values", "path"), MISSPELT, ids=[case[1][:40] for case in MISSPELT])
def test_what_the_schema_refuses(chart, values, path):
    done = chart.try_render(SECRET | values, sets=())
    assert done.returncode != 0
    assert path in done.stderr


def test_an_old_kubernetes_is_refused(chart):
    done = chart.helm("template", "rs", str(chart.folder), "--kube-version", "1.28.0")
    assert "chart requires kubeVersion: >=1.29.0-0" in done.stderr
