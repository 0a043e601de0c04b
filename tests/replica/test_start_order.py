"""What SGLang is told of the order in which requests start; no engine runs here."""

from types import SimpleNamespace

import pytest

from reasonserve.config import EngineConfig
from reasonserve.kv import KvRequest
from reasonserve.replica.launch import engine_arguments
from reasonserve.replica.protocol import EngineRequest, Sampling
from reasonserve.replica.sglang_engine import SglangEngine


class Sglang:
    """Notes the priority of the one request that it gets."""

    def __init__(self):
        tokenizer = SimpleNamespace(apply_chat_template=lambda messages: [], chat_template=None)
        self.tokenizer_manager = SimpleNamespace(tokenizer=tokenizer)
        self.priority = None

    def get_all_child_pids(self):
        return []

    async def async_generate(self, *, priority, **_):
        self.priority = priority

        async def outputs():
            meta = {"finish_reason": {"type": "length"}, "prompt_tokens": 1, "cached_tokens": 0, "completion_tokens": 1}
            yield {"text": "", "output_ids": [7], "meta_info": meta}

        return outputs()


@pytest.mark.parametrize("is_guaranteed", [True, False])
async def test_what_is_guaranteed_has_the_higher_priority(is_guaranteed):
    sglang = Sglang()
    engine = SglangEngine(sglang, None, EngineConfig())
    request = EngineRequest(
        request_id="r",
        input_ids=(1,),
        sampling=Sampling(max_new_tokens=1),
        kv=KvRequest(method="full", budget_tokens=0),
        is_guaranteed=is_guaranteed,
    )
    assert [chunk.token_ids async for chunk in engine.generate(request)] == [(7,)]
    assert sglang.priority == is_guaranteed


def test_priority_orders_the_queue_and_retracts_nobody():
    arguments = engine_arguments(EngineConfig(), "model")
    assert arguments["enable_priority_scheduling"]
    assert arguments["disable_priority_preemption"]
    assert arguments["default_priority_value"] == 0
