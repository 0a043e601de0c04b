"""What protoc generates is committed as it is generated, and the protos keep buf's rules."""

import subprocess
import sys
from pathlib import Path

PROTOS = "proto/reasonserve/api/v1"
GENERATED = "service/reasonserve/api/v1"


def test_generated_code_is_current(root: Path, tmp_path: Path) -> None:
    protos = [str(path.relative_to(root)) for path in sorted((root / PROTOS).glob("*.proto"))]
    outputs = [f"--{kind}={tmp_path}" for kind in ("python_out", "grpc_python_out", "pyi_out")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "proto", *outputs, *protos]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    fresh = {path.name: path.read_text() for path in (tmp_path / "reasonserve/api/v1").iterdir()}
    committed = {path.name: path.read_text() for path in (root / GENERATED).glob("*_pb2*")}
    assert fresh.keys() == committed.keys()
    stale = [name for name, text in fresh.items() if committed[name] != text]
    assert stale == [], "run make proto"


def test_buf_lint(root: Path) -> None:
    buf = Path(sys.executable).with_name("buf")
    done = subprocess.run([buf, "lint", "proto"], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
