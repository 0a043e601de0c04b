"""The one path of both protocols, without Ray: pieces, figures over outputs, deadlines, and what is recorded."""

import asyncio
from dataclasses import replace

import pytest

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.errors import InvalidRequestError, UnavailableError
from reasonserve.gateway.auth import Authenticator, Owner
from reasonserve.gateway.errors import DeadlinePassedError
from reasonserve.gateway.observe import Requests
from reasonserve.gateway.service import GatewayService
from reasonserve.replica.messages import Delta, Ending, Failed
from reasonserve.replica.protocol import TokenChance, TokenLogprob
from reasonserve.telemetry import metrics

KEY = (("authorization", "Bearer key"),)
END = Ending(
    finish_reason="stop",
    matched_stop="x",
    input_tokens=5,
    cached_tokens=3,
    output_tokens=2,
    reasoning_tokens=1,
    method="r-kv",
    budget_tokens=64,
    profile_id="",
    peak_slots=9,
    rounds=1,
    kept_cells=10,
    evicted_cells=4,
    round_seconds=0.5,
)


def delta(index, token, *, ending=None):
    place = TokenLogprob(TokenChance(token, str(token), -0.5), (TokenChance(token, str(token), -0.5),))
    return Delta(
        index=index,
        text=f"{token},",
        reasoning="hm " if token == 1 else "",
        token_ids=(token,),
        logprobs=(place,),
        held_slots=token,
        rounds=0,
        ending=ending,
    )


class Recorder:
    """Keeps what is recorded."""

    def __init__(self):
        self.added = []

    def add(self, metric, value, *labels):
        self.added.append((metric, value, labels))

    def observe(self, metric, value, *labels):
        pass


class Replicas:
    """Answers every call with the same items, then waits; counts who left."""

    def __init__(self, *items):
        self.items, self.closed = items, 0

    async def generate(self, call):
        try:
            for item in self.items:
                yield item
            await asyncio.Event().wait()
        finally:
            self.closed += 1


def service(*items):
    recorder, replicas = Recorder(), Replicas(*items)

    async def resolve(key):
        return Owner("acme")

    made = GatewayService(
        model="m",
        authenticator=Authenticator(resolve, key_cache_s=5.0),
        replicas=replicas,
        max_input_bytes=1000,
        requests=Requests(recorder),
    )
    return made, replicas, recorder


def request(outputs):
    return pb.GenerateRequest(prompt="p", sampling=pb.SamplingOptions(num_outputs=outputs))


def outcomes(recorder):
    return [labels[1] for metric, _, labels in recorder.added if metric is metrics.REQUESTS]


TWO = (
    delta(1, 1),
    delta(0, 2),
    delta(1, 3, ending=replace(END, cached_tokens=4, peak_slots=7)),
    delta(0, 4, ending=END),
)


async def test_outputs_are_put_together_with_figures_over_all():
    made, replicas, recorder = service(*TWO)
    answer = await made.answer(request(2), KEY)
    assert (answer.text, list(answer.token_ids), answer.reasoning) == ("2,4,", [2, 4], "")
    (other,) = answer.more_outputs
    assert (other.index, other.text, other.reasoning, other.kv.peak_slots) == (1, "1,3,", "hm ", 7)
    assert [place.token.token_id for place in other.logprobs] == [1, 3]
    assert (answer.finish_reason, answer.matched_stop) == (pb.FINISH_REASON_STOP, "x")
    usage = pb.Usage(input_tokens=5, output_tokens=4, cached_tokens=3, reasoning_tokens=2, peak_kv_slots=16)
    assert answer.usage == usage
    assert not answer.HasField("progress")
    assert (replicas.closed, outcomes(recorder)) == (1, ["ok"])


async def test_a_streams_messages_add_up_to_the_answer():
    parts = [part async for part in service(*TWO)[0].stream(request(2), KEY)]
    assert "".join(part.text for part in parts) == "2,4,"
    others = [other for part in parts for other in part.more_outputs]
    assert ("".join(other.text for other in others), "".join(other.reasoning for other in others)) == ("1,3,", "hm ")
    for of, tokens in ((parts, [2, 4]), (others, [1, 3])):
        assert [token for part in of for token in part.token_ids] == tokens
        assert [place.token.token_id for part in of for place in part.logprobs] == tokens
    assert [part.HasField("usage") for part in parts] == [False, False, False, True]
    whole = await service(*TWO)[0].answer(request(2), KEY)
    assert parts[-1].usage == whole.usage
    assert parts[2].more_outputs[0].finish_reason == pb.FINISH_REASON_STOP


async def test_an_answer_with_an_output_missing_is_not_complete():
    made, replicas, recorder = service(*TWO[:3], Failed(error=UnavailableError("gone")))
    with pytest.raises(UnavailableError):
        await made.answer(request(2), KEY)
    assert (replicas.closed, outcomes(recorder)) == (1, ["unavailable"])


async def test_a_deadline_ends_the_wait_and_the_call():
    made, replicas, recorder = service(TWO[1])
    with pytest.raises(DeadlinePassedError):
        await made.answer(request(1), (*KEY, ("x-deadline-ms", "20")))
    assert (replicas.closed, outcomes(recorder)) == (1, ["deadline_exceeded"])


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "soon", b"5"])
async def test_a_deadline_that_is_none_is_refused(value):
    with pytest.raises(InvalidRequestError, match="x-deadline-ms"):
        await service()[0].answer(request(1), (*KEY, ("x-deadline-ms", value)))
