"""Kernels without a GPU: run by Triton's interpreter, and compiled to machine code.

Each needs a process of its own: Triton chooses when it is first imported whether it interprets or compiles.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def run(tmp_path, *command, **environment):
    """Runs Python with a fresh compile cache and returns what it printed."""
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)} | environment
    result = subprocess.run(
        [sys.executable, *command], env=environment, cwd=HERE.parents[1], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout


def test_interpreted(tmp_path):
    """``device/`` says what is compared."""
    out = run(tmp_path, "-m", "pytest", "-q", "-n", "2", str(HERE / "device"), TRITON_INTERPRET="1")
    assert " passed" in out
    assert " skipped" not in out


def test_compiled(tmp_path):
    """Compute capability 9.0; compiling needs no GPU of it."""
    environment = {"TRITON_INTERPRET": "0"}
    compiled = run(tmp_path, str(HERE / "compile_kernels.py"), "90", **environment).split()
    for path in (HERE.parents[1] / "kernels" / "reasonalloc" / "ops").glob("*/kernel.py"):
        assert path.parent.name in compiled


def test_operators_import_no_triton_until_a_kernel_is_launched():
    operators = "attend, budgets, compact, keep, observe, redundancy, route, score, split"
    code = f"import sys\nfrom reasonalloc.ops import {operators}, launch\nsys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
