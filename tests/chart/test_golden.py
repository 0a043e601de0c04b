"""Each values file renders to what was last looked at.

After a wanted change: ``make chart`` writes the renders anew; read the difference before it is committed.
"""

import difflib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "chart"
FILES = ("values.yaml", "values-local.yaml", "values-h200.yaml", "values-multi-tenant.yaml")


def rendered(file: str) -> str:
    """What helm makes of a values file, as the release "rs" in the namespace "serving"."""
    chart = ROOT / "helm" / "reasonserve"
    command = [Path(sys.executable).with_name("helm"), "template", "rs", chart, "--namespace", "serving"]
    command += ["--kube-version", "1.31.0", "--values", chart / file]
    command += ["--set", "adminToken.existingSecret=reasonserve-admin"]
    # Dashboards are whole files, and compared as such.
    command += ["--set", "monitoring.dashboards.enabled=false"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("file", FILES)
def test_renders_are_the_golden_ones(file: str) -> None:
    golden = (GOLDEN / file).read_text().splitlines()
    difference = list(difflib.unified_diff(golden, rendered(file).splitlines(), "golden", "now", lineterm="", n=1))
    assert difference == [], "run make chart and read the difference"


def test_dashboards_are_their_files(renders) -> None:
    files = {path.name: path.read_text() for path in (ROOT / "helm" / "reasonserve" / "dashboards").glob("*.json")}
    maps = [
        document
        for document in renders["values-h200.yaml"].of_kind("ConfigMap")
        if "-dashboard-" in document["metadata"]["name"]
    ]
    assert {name: text.strip() for map_ in maps for name, text in map_["data"].items()} == {
        name: text.strip() for name, text in files.items()
    }
    assert {map_["metadata"]["labels"]["grafana_dashboard"] for map_ in maps} == {"1"}


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (GOLDEN / name).write_text(rendered(name))
