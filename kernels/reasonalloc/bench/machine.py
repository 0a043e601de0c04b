"""What figures hold for."""

import platform
import subprocess
from pathlib import Path

import torch


def machine(device: torch.device) -> str:
    """Processor or GPU, versions and commit, in one line."""
    parts = [_gpu(device) if device.type == "cuda" else f"{_processor()} with {torch.get_num_threads()} threads"]
    parts += [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    if device.type == "cuda":
        import triton

        parts.append(f"triton {triton.__version__}")
    return ", ".join([*parts, f"commit {_commit()}"])


def _gpu(device: torch.device) -> str:
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name} ({properties.major}.{properties.minor}), CUDA {torch.version.cuda}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return result.stdout.strip() or "unknown"
