"""Many unlike requests in a pool too small for them, then the outputs of one request, on a real SGLang."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reasonserve.bench.soak import QUICK, Account, account, mixed_job, mixed_work
from reasonserve.replica.protocol import output_id

pytestmark = pytest.mark.engine

Results = dict[str, Any]

VOCABULARY = 602
OUTPUTS, TOKENS, ABORTED = 4, 150, 2
KV = {"method": "reasonalloc", "budget_tokens": 48, "buffer_tokens": 16}
PROMPT = list(range(100, 140))
LAYERS, HEADS = 4, 2


def sample(name: str, index: int) -> dict[str, Any]:
    """Output ``index`` of a request that samples, as the replica asks for it: a seed and an id of its own."""
    sampling = {"max_new_tokens": TOKENS, "temperature": 0.8, "seed": 11 + index}
    return {"id": name, "input_ids": PROMPT, "sampling": sampling, "kv": KV}


@pytest.fixture(scope="module")
def work() -> list[dict[str, Any]]:
    return mixed_work(QUICK, VOCABULARY)


@pytest.fixture(scope="module")
def ours(run_job: Callable[[dict[str, Any]], Results], work: list[Any], pytestconfig: pytest.Config) -> Results:
    model = str(pytestconfig.rootpath / "tests" / "data" / "pointer-chaser")
    outputs = [sample(output_id("sampled", n, OUTPUTS), n) for n in range(OUTPUTS)]
    outputs[ABORTED]["abort_after"] = 100
    job = mixed_job(QUICK, model, work)
    return run_job({**job, "dtype": "float32", "waves": [*job["waves"], outputs, [sample("alone", 1)]]})


@pytest.fixture(scope="module")
def found(work: list[dict[str, Any]], ours: Results) -> Account:
    return account(work, ours, (0, 0))


def test_every_request_ends_as_it_must_and_nothing_leaks(found: Account) -> None:
    """SGLang's strict checks ran at every step, or the job would have failed."""
    assert found.faults == ()
    assert set(found.ends) == {"finished", "aborted", "refused"}
    assert found.used_slots == 0


def test_the_pool_is_small_enough_to_count(found: Account) -> None:
    assert found.rounds > 0
    assert found.own_squeezes + found.retractions > 0


def test_each_output_of_a_request_has_cells_of_its_own(ours: Results) -> None:
    outputs = [ours[output_id("sampled", n, OUTPUTS)] for n in range(OUTPUTS)]
    assert len({tuple(output["token_ids"][:50]) for output in outputs}) == OUTPUTS
    for output in outputs:
        assert output["kv"]["peak_slots"] <= len(PROMPT) - output["cached_tokens"] + 48 + 16
        assert {event["kept_cells"] for event in output["kv"]["rounds"]} == {48 * LAYERS * HEADS}


def test_an_output_that_leaves_does_not_end_the_others(ours: Results) -> None:
    outputs = [ours[output_id("sampled", n, OUTPUTS)] for n in range(OUTPUTS)]
    assert [output["finish_reason"] for output in outputs] == ["length", "length", "", "length"]
    assert outputs[1]["token_ids"] == ours["alone"]["token_ids"]
