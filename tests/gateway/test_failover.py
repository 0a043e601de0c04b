"""What is run a second time when a replica is lost, and what never is."""

from dataclasses import replace
from unittest.mock import sentinel

import pytest

from reasonserve.errors import InvalidRequestError, UnavailableError
from reasonserve.gateway.failover import Failover
from reasonserve.replica.messages import Delta, Failed, GenerateCall, PromptInput
from reasonserve.replica.protocol import Sampling
from reasonserve.replica.sizing import KvAsk


def delta(text):
    return Delta(text=text, token_ids=(1,), held_slots=1, rounds=0)


class Replicas:
    """Plays one script a try: deltas, then perhaps an error, raised or as a value."""

    def __init__(self, *scripts):
        self.scripts = list(scripts)
        self.attempts = []

    async def generate(self, call):
        self.attempts.append(call.attempt)
        for step in self.scripts.pop(0):
            if isinstance(step, Exception):
                raise step
            yield step if isinstance(step, Failed) else delta(step)

    async def model_info(self):
        (step,) = self.scripts.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    count_tokens = generate


LOST = UnavailableError("gone")


async def run(replicas, *, is_streamed):
    call = GenerateCall(
        request_id="r",
        tenant_id="t",
        input=PromptInput(text="a"),
        sampling=Sampling(),
        kv=KvAsk(),
        is_streamed=is_streamed,
    )
    seen = []
    try:
        async for item in Failover(replicas).generate(call):
            seen.append(item.error if isinstance(item, Failed) else item.text)
    except UnavailableError as error:
        seen.append(error)
    return seen


@pytest.mark.parametrize("lost", [LOST, Failed(error=LOST)], ids=["raised", "as a value"])
@pytest.mark.parametrize("is_streamed", [True, False])
async def test_a_call_that_showed_nothing_is_run_again_once(lost, is_streamed, caplog):
    replicas = Replicas([lost], ["a", "b"])
    assert await run(replicas, is_streamed=is_streamed) == ["a", "b"]
    assert replicas.attempts == [0, 1]
    (told,) = caplog.records
    assert told.fields == {"request_id": "r", "tenant": "t"}


@pytest.mark.parametrize("lost", [LOST, Failed(error=LOST)], ids=["raised", "as a value"])
async def test_an_answer_that_is_awaited_whole_is_made_again_from_its_start(lost):
    assert await run(Replicas(["a", "b", lost], ["a", "b", "c"]), is_streamed=False) == ["a", "b", "c"]


@pytest.mark.parametrize("lost", [LOST, Failed(error=LOST)], ids=["raised", "as a value"])
async def test_a_stream_that_has_begun_ends_and_repeats_nothing(lost):
    replicas = Replicas(["a", "b", lost], ["a", "b", "c"])
    assert await run(replicas, is_streamed=True) == ["a", "b", LOST]
    assert replicas.attempts == [0]


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_there_is_no_third_try(is_streamed):
    replicas = Replicas([LOST], [LOST], ["a"])
    assert await run(replicas, is_streamed=is_streamed) == [LOST]
    assert replicas.attempts == [0, 1]


async def test_an_answer_that_is_awaited_whole_is_handed_over_once_its_outputs_have_ended():
    after = []

    class Slow:
        async def generate(self, call):
            try:
                yield delta("a")
                yield replace(delta("b"), ending=sentinel.ending)
                after.append("waited for")
                yield delta("c")
            finally:
                after.append("closed")

    assert await run(Slow(), is_streamed=False) == ["a", "b"]
    assert after == ["closed"]


async def test_what_the_caller_did_wrong_is_not_tried_again():
    wrong = InvalidRequestError("no")
    replicas = Replicas([Failed(error=wrong)], ["a"])
    assert await run(replicas, is_streamed=True) == [wrong]
    assert replicas.attempts == [0]


async def test_other_questions_are_asked_again_too():
    assert await Failover(Replicas([LOST], ["info"])).model_info() == "info"
    with pytest.raises(UnavailableError):
        await Failover(Replicas([LOST], [LOST])).model_info()
