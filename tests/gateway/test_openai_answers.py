"""What the official client reads of a whole and of a streamed answer, in one process: every part of two outputs."""

from dataclasses import replace

import httpx
import openai
import pytest

from reasonserve.gateway.auth import Authenticator, Owner
from reasonserve.gateway.observe import Requests
from reasonserve.gateway.openai.app import build_app
from reasonserve.gateway.service import GatewayService
from reasonserve.replica.messages import Delta, Ending
from reasonserve.replica.protocol import TokenChance, TokenLogprob

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "n": 2, "logprobs": True, "top_logprobs": 1}
TEXT = {"model": "m", "prompt": "hi", "n": 2, "logprobs": 1}
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
CUT = "\N{REPLACEMENT CHARACTER}"


def delta(index, text, *, reasoning="", ending=None):
    """One token of an output; its log-probability is minus its output's number and a half."""
    token = TokenChance(7, text or reasoning, -index - 0.5)
    place = TokenLogprob(token, (token,))
    return Delta(
        index=index,
        text=text,
        reasoning=reasoning,
        token_ids=(7,),
        logprobs=(place,),
        held_slots=1,
        rounds=0,
        ending=ending,
    )


PIECES = (
    delta(1, "", reasoning="hm"),
    delta(0, CUT),
    delta(1, "b", ending=replace(END, finish_reason="length", matched_stop="", peak_slots=7)),
    delta(0, "c", ending=END),
)


class Replicas:
    """Answers every call with the same pieces."""

    async def generate(self, call):
        for piece in PIECES:
            yield piece


class Recorder:
    """Keeps nothing."""

    def add(self, metric, value, *labels):
        pass

    observe = add


@pytest.fixture
async def client():
    async def resolve(key):
        return Owner("acme")

    service = GatewayService(
        model="m",
        authenticator=Authenticator(resolve, key_cache_s=5.0),
        replicas=Replicas(),
        max_input_bytes=1000,
        requests=Requests(Recorder()),
    )
    transport = httpx.ASGITransport(build_app(service, max_body_bytes=10_000))
    async with openai.AsyncOpenAI(
        base_url="http://in-process/v1", api_key="key", http_client=httpx.AsyncClient(transport=transport)
    ) as made:
        yield made


def check_ends(first, second, usage):
    assert (first.finish_reason, first.matched_stop, first.kv["peak_slots"]) == ("stop", "x", 9)
    assert (second.finish_reason, second.matched_stop, second.kv["peak_slots"]) == ("length", None, 7)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (5, 4, 9)
    assert usage.prompt_tokens_details.cached_tokens == 3
    assert usage.completion_tokens_details.reasoning_tokens == 2
    assert usage.peak_kv_slots == 16


def check_chances(first, second):
    """A token that is part of a character has no bytes of its own to show."""
    assert [(place.token, place.logprob, place.bytes) for place in first] == [(CUT, -0.5, None), ("c", -0.5, [99])]
    assert [(place.token, place.logprob) for place in second] == [("hm", -1.5), ("b", -1.5)]
    assert [[top.token for top in place.top_logprobs] for place in second] == [["hm"], ["b"]]


async def test_a_whole_chat(client):
    answer = await client.chat.completions.create(**CHAT)
    first, second = answer.choices
    assert (first.message.content, second.message.content) == (CUT + "c", "b")
    assert second.message.reasoning_content == "hm"
    assert not hasattr(first.message, "reasoning_content")
    check_chances(first.logprobs.content, second.logprobs.content)
    check_ends(first, second, answer.usage)


async def test_a_streamed_chat(client):
    stream = await client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True})
    *chunks, closing = [chunk async for chunk in stream]
    told = [[chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index] for index in (0, 1)]
    assert [[choice.delta.role for choice in one] for one in told] == [["assistant", None, None]] * 2
    assert ["".join(choice.delta.content or "" for choice in one) for one in told] == [CUT + "c", "b"]
    assert [getattr(choice.delta, "reasoning_content", "") for choice in told[1]] == ["", "hm", ""]
    check_chances(*([place for choice in one[1:] for place in choice.logprobs.content] for one in told))
    check_ends(told[0][-1], told[1][-1], closing.usage)


async def test_plain_completions(client):
    answer = await client.completions.create(**TEXT)
    stream = await client.completions.create(**TEXT, stream=True, stream_options={"include_usage": True})
    *chunks, closing = [chunk async for chunk in stream]
    told = [[chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index] for index in (0, 1)]
    assert [choice.text for choice in answer.choices] == [CUT + "c", "b"]
    assert ["".join(choice.text for choice in one) for one in told] == [CUT + "c", "b"]
    for whole, parts in zip(answer.choices, told, strict=True):
        assert whole.logprobs.tokens == [token for part in parts for token in part.logprobs.tokens]
        assert whole.logprobs.token_logprobs == [-whole.index - 0.5] * 2
        assert whole.logprobs.top_logprobs == [chance for part in parts for chance in part.logprobs.top_logprobs]
    check_ends(*answer.choices, answer.usage)
    check_ends(told[0][-1], told[1][-1], closing.usage)
