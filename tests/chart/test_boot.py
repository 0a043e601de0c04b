"""The text inside the chart is the text that runs: controller, init containers, Ray Serve and the chart's own test.

`values-local.yaml` is rendered with addresses and folders of this machine. Each container's own command line runs here;
`serveConfigV2` goes to Ray Serve unchanged, by the way that Ray's operator sends it; the engine is the real one.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name

import pytest
import requests
import yaml
from pydantic import ValidationError

from reasonserve.chart.serve_config import ServeConfig
from reasonserve.models.settings import ModelSettings

START_TIMEOUT_S = 300.0
LOCAL = "values-local.yaml"


def free_ports(count):
    """Ports that were free a moment ago, all different, outside the range that Ray's workers take."""
    with ExitStack() as held:
        found = []
        while len(found) < count:
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            found += [port] if port > 19999 else []
        return found


@dataclass(frozen=True)
class Machine:
    """Folders and ports of this machine in place of a cluster's."""

    folder: Path
    gateway: int
    http: int
    controller: int
    metrics: int
    dashboard: int

    def sets(self):
        return (
            f"config.gateway.port={self.gateway}",
            f"config.gateway.http_port={self.http}",
            f"config.controller.port={self.controller}",
            f"config.controller.metrics_port={self.metrics}",
            f"config.telemetry.metrics_port={free_ports(1)[0]}",
            f"adminToken.mountPath={self.folder}/secret",
            f"model.mountPath={ModelSettings().cache}",
        )

    def argv(self, container):
        """A container's command line with this machine's Python and folders."""
        moved = {
            "/run/reasonserve": f"{self.folder}/run",
            "/var/lib/reasonserve": f"{self.folder}/data",
            "/etc/reasonserve/config": str(self.folder),
            "/etc/reasonserve/secrets": f"{self.folder}/secrets",
        }
        words = [*container["command"], *container.get("args", ())]
        for here, there in moved.items():
            words = [word.replace(here, there) for word in words]
        return [sys.executable, *words[1:]] if words[0] == "python" else words

    def environment(self, container):
        """A container's variables over those of this process; its home is a folder of the test's."""
        own = {item["name"]: item["value"] for item in container.get("env", ()) if "value" in item}
        return os.environ | own | {"HOME": str(self.folder)}

    def run(self, container):
        done = subprocess.run(
            self.argv(container), env=self.environment(container), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    made = Machine(tmp_path_factory.mktemp("cluster"), *free_ports(5))
    for name in ("run", "data", "secret", "secrets"):
        (made.folder / name).mkdir()
    for file in ("secret/token", "secrets/admin"):
        (made.folder / file).write_text("an-admin-token-of-the-test")
    return made


@contextmanager
def process(argv, log, **options) -> Iterator[subprocess.Popen]:
    with log.open("wb") as output, subprocess.Popen(argv, stderr=output, stdin=subprocess.PIPE, **options) as child:
        try:
            yield child
        finally:
            child.stdin.close()
            try:
                child.wait(timeout=90)
            finally:
                child.kill()


@pytest.fixture(scope="module")
def controller(chart, machine):
    """The controller's pod: its init container, then its container."""
    pod = chart.render(file=LOCAL, sets=machine.sets()).pods()["controller"]["spec"]
    machine.run(pod["initContainers"][0])
    (container,) = pod["containers"]
    with process(
        machine.argv(container), machine.folder / "controller.log", env=machine.environment(container)
    ) as child:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and child.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", machine.controller)) == 0:
                    break
            time.sleep(0.1)
        else:
            pytest.fail("the controller did not listen:\n" + (machine.folder / "controller.log").read_text())
        yield child
        child.terminate()


@pytest.fixture(scope="module")
def render(chart, machine):
    """The release, with the controller named by its address here."""
    external = ("controller.enabled=false", f"controller.endpoint=127.0.0.1:{machine.controller}")
    return chart.render(file=LOCAL, sets=(*machine.sets(), *external))


@pytest.fixture(scope="module")
def application(render, machine, controller):
    """What Ray Serve says of the application once it runs."""
    pod = render.pods()["cpu"]["spec"]
    (machine.folder / "config.yaml").write_text(render.one("ConfigMap", "-config")["data"]["config.yaml"])
    machine.run(pod["initContainers"][0])
    (machine.folder / "serve.yaml").write_text(render.serve_config)
    script = str(Path(__file__).with_name("boot_main.py"))
    argv = [sys.executable, script, str(machine.folder / "serve.yaml"), str(machine.dashboard)]
    # As Ray's operator sets them for authOptions.mode token.
    assert render.cluster["authOptions"] == {"mode": "token"}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "7" * 64}
    environment = machine.environment(pod["containers"][0]) | token
    with process(argv, machine.folder / "ray.log", env=environment, stdout=subprocess.PIPE) as child:
        line = child.stdout.readline()
        assert line, (machine.folder / "ray.log").read_text()[-3000:]
        yield json.loads(line)


@pytest.mark.stack
def test_ray_serve_runs_the_chart_and_answers(application, render, machine):
    assert application["status"] == "RUNNING", application["message"]
    options = {name: d["deployment_config"]["ray_actor_options"] for name, d in application["deployments"].items()}
    assert options["Gateway"]["resources"] == {"reasonserve_gateway": 1}
    assert options["Replica"]["resources"] == {"reasonserve_replica": 1}
    test = render.pods()["test"]["spec"]["containers"][0]
    service = f"rs-reasonserve-serve-svc.serving.svc:{machine.gateway}"
    assert f"--gateway={service}" in test["args"]
    with requests.Session() as client:
        client.trust_env = False
        assert "reasonserve_" in client.get(f"http://127.0.0.1:{machine.metrics}/metrics", timeout=10).text
    here = test | {"args": [arg.replace(service, f"127.0.0.1:{machine.gateway}") for arg in test["args"]]}
    assert len(machine.run(here).stdout) > 5


def test_the_text_is_read_strictly(renders):
    for render in renders.values():
        (function,) = ServeConfig.from_text(render.serve_config).grpc_options.grpc_servicer_functions
        assert resolve_name(function).__module__ == "reasonserve.gateway.proxy"


@pytest.mark.parametrize(
    ("right", "wrong", "where"),
    [
        ("grpc_servicer_functions", "grpc_service_functions", "grpc_options.grpc_service_functions"),
        ("ray_actor_options", "ray_actor_option", "ray_actor_option"),
        ("pool_slots", "pool_slot", "args.config.engine.pool_slot"),
        ("route_prefix: /", "route_prefix: null", "route_prefix"),
        ("proxy_location", "proxies", "proxies"),
        ("reasonserve_gateway: 1", "gateway: 1", "resources.gateway"),
        ("reasonserve.gateway.proxy.add_generation_service", "x.add_to_server", "grpc_servicer_functions"),
    ],
)
def test_what_ray_serve_would_pass_over_is_refused(renders, right, wrong, where):
    text = renders[LOCAL].serve_config
    assert right in text
    with pytest.raises(ValidationError) as refusal:
        ServeConfig.from_text(text.replace(right, wrong, 1))
    assert where in "\n".join(".".join(map(str, error["loc"])) for error in refusal.value.errors())


def test_the_proxies_are_those_of_a_local_stack(renders):
    """But for the address: the kubelet and the front come from other machines."""
    code = (
        "import sys, json; from reasonserve.app import serve_options; from reasonserve.config import ServiceConfig;"
        "made = serve_options(ServiceConfig(gateway={'entrance': 'proxy'})); grpc = made['grpc_options'];"
        "made['grpc_options'] = grpc.model_dump(exclude_unset=True); print(json.dumps(made))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    local = json.loads(done.stdout)
    here = yaml.safe_load(renders["values.yaml"].serve_config)
    assert local["http_options"].pop("host") == "127.0.0.1"
    assert here["http_options"].pop("host") == "0.0.0.0"
    assert {key: here[key] for key in local} == local


def test_the_configuration_is_the_same_everywhere(renders):
    for render in renders.values():
        file = render.one("ConfigMap", "-config")["data"]["config.yaml"]
        (application,) = ServeConfig.from_text(render.serve_config).applications
        assert type(application.args.config).from_mapping(yaml.safe_load(file)) == application.args.config
