"""The repository as git sees it."""

import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return _ROOT


@pytest.fixture(scope="session")
def tracked() -> list[Path]:
    """Every file that is, or could be, committed; relative to the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (_ROOT / (path := Path(name))).is_file()]


@pytest.fixture(scope="session")
def own_modules(root: Path, tracked: list[Path]) -> list[Path]:
    """Our Python files; what protoc writes is not ours."""
    generated = Path("service/reasonserve/api")
    return [path for path in tracked if path.suffix == ".py" and generated not in path.parents]
