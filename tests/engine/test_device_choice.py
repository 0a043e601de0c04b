"""What a configuration says about the device reaches SGLang and the scheduler processes."""

from __future__ import annotations

import pytest

from reasonserve.config import EngineConfig, ServiceConfig
from reasonserve.engine.settings import EngineSettings
from reasonserve.errors import StartupError
from reasonserve.kv import SETTINGS_VARIABLE
from reasonserve.replica.launch import engine_arguments, node_environment


def test_prefill_on_a_gpu_is_up_to_the_backend_that_sglang_chooses() -> None:
    on_cpu, on_gpu = (engine_arguments(EngineConfig(device=device), "model") for device in ("cpu", "cuda"))
    assert (on_cpu["device"], on_cpu["prefill_attention_backend"]) == ("cpu", "torch_native")
    assert on_gpu["device"] == "cuda"
    assert "prefill_attention_backend" not in on_gpu
    assert on_cpu["decode_attention_backend"] == on_gpu["decode_attention_backend"] == "reasonalloc"


def test_a_device_without_set_aside_gpus_is_refused() -> None:
    with pytest.raises(StartupError, match=r"replicas\.num_gpus 0, which hides all GPUs; raise it"):
        ServiceConfig.from_mapping({"engine": {"device": "cuda"}})
    ServiceConfig.from_mapping({"engine": {"device": "cuda"}, "replicas": {"num_gpus": 1}})


@pytest.mark.parametrize("allowed", [False, True])
def test_the_schedulers_hear_of_tables_and_of_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config, allowed: bool
) -> None:
    config = ServiceConfig(engine=EngineConfig(allow_unproven_device=allowed, table_cells=256))
    model = pytestconfig.rootpath / "tests" / "data" / "pointer-chaser"
    monkeypatch.setenv(SETTINGS_VARIABLE, node_environment(config, str(model), None)[SETTINGS_VARIABLE])
    settings = EngineSettings.from_environment()
    assert (settings.allow_unproven_device, settings.table_cells) == (allowed, 256)
