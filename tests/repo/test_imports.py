"""The worlds stay apart, on paper and in a running interpreter."""

import subprocess
import sys
from pathlib import Path

import pytest


def test_import_contracts(root: Path) -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("reasonalloc", {"torch", "triton"}),
        ("reasonalloc.profile", {"torch", "numpy"}),
        ("reasonserve.controller.main", {"torch", "triton", "ray", "sglang", "transformers"}),
        ("reasonserve.gateway.validate", {"torch", "triton", "ray", "sglang", "transformers"}),
        ("reasonserve.cli.main", {"torch", "triton", "ray", "sglang", "transformers"}),
        ("reasonserve.node.front", {"torch", "triton", "ray", "sglang", "transformers"}),
        ("reasonserve.node.smoke", {"torch", "triton", "ray", "sglang", "transformers"}),
        ("reasonserve.plan.sizing", {"torch", "numpy", "ray", "sglang", "grpc"}),
        ("reasonserve.models.fingerprint", {"torch", "numpy", "pydantic", "grpc"}),
    ],
)
def test_importing_stays_light(module: str, banned: set[str]) -> None:
    script = f"import sys, {module}; print(*sorted({banned!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
