"""Kernels against their references: in Triton's interpreter, or on a GPU.

Triton reads ``TRITON_INTERPRET`` when it is first imported and keeps that mode for the whole process, so
``test_kernels.py`` runs this folder in a process of its own. ``pytest -m gpu tests/alloc`` runs it on a GPU.
"""

import os

import pytest
import torch

from reasonalloc.ops import launch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "device" and not INTERPRETED:
            item.add_marker(pytest.mark.gpu)


class NoDevice(pytest.Module):
    """A module that is skipped as a whole."""

    def collect(self):
        pytest.skip("no CUDA device; test_kernels.py runs these in Triton's interpreter", allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    if not INTERPRETED and not torch.cuda.is_available():
        return NoDevice.from_parent(parent, path=module_path)
    return None


@pytest.fixture(scope="session")
def device():
    """Where the tests of this process run kernels."""
    return torch.device("cpu" if INTERPRETED else "cuda")


@pytest.fixture(autouse=True)
def kernels(device, monkeypatch):
    """Public functions launch kernels, and what these do not write is poison."""
    monkeypatch.setattr(launch, "use_kernel", lambda device: True)
    monkeypatch.setattr(torch, "empty", poisoned_empty(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poisoned_empty(torch.empty_like))


def poisoned_empty(empty):
    def poisoned(*args, **kwargs):
        tensor = empty(*args, **kwargs)
        if tensor.dtype == torch.bool:
            return tensor.fill_(True)
        return tensor.fill_(torch.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).min // 2)

    return poisoned
