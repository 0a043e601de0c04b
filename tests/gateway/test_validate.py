"""Every field of the wire contract, held against what it allows."""

import math

import pytest

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.errors import InvalidRequestError
from reasonserve.gateway.validate import parse_request
from reasonserve.replica.messages import ChatInput, PromptInput, TokensInput
from reasonserve.replica.protocol import Sampling
from reasonserve.replica.sizing import KvAsk


def parse(request, *, max_input_bytes=1 << 20):
    return parse_request(request, model="m", request_id="r", tenant_id="t", max_input_bytes=max_input_bytes)


def with_sampling(**options):
    return pb.GenerateRequest(prompt="p", sampling=pb.SamplingOptions(**options))


def with_kv(**options):
    return pb.GenerateRequest(prompt="p", kv=pb.KvOptions(**options))


def chat(*messages):
    turns = [pb.ChatMessage(role=role, content=content) for role, content in messages]
    return pb.GenerateRequest(chat=pb.ChatInput(messages=turns))


def test_defaults_are_those_of_the_contract():
    call = parse(pb.GenerateRequest(prompt="p"))
    assert call.input == PromptInput(text="p")
    assert call.sampling == Sampling(temperature=1.0, top_p=1.0, top_k=-1, max_new_tokens=128)
    assert call.kv == KvAsk(method="reasonalloc", budget_tokens=None, prompt_mode="pinned")


def test_everything_given_is_passed_on():
    request = pb.GenerateRequest(
        model="m",
        tokens=pb.TokenInput(ids=[3, 1]),
        sampling=pb.SamplingOptions(
            temperature=0, top_p=0.5, top_k=7, max_new_tokens=9, stop=["a", "b"], seed=0, ignore_eos=True
        ),
        kv=pb.KvOptions(budget_tokens=64, method="r-kv", prompt_mode=pb.PROMPT_MODE_EVICTABLE),
    )
    call = parse(request)
    assert call.input == TokensInput(ids=(3, 1))
    assert call.sampling == Sampling(
        temperature=0.0, top_p=0.5, top_k=7, max_new_tokens=9, stop=("a", "b"), seed=0, ignore_eos=True
    )
    assert call.kv == KvAsk(method="r-kv", budget_tokens=64, prompt_mode="evictable")
    assert parse(chat(("system", "s"), ("user", "u"))).input == ChatInput(messages=(("system", "s"), ("user", "u")))


@pytest.mark.parametrize(
    ("request_", "field", "told"),
    [
        (pb.GenerateRequest(), "input", "exactly one of prompt, chat and tokens"),
        (pb.GenerateRequest(prompt=""), "prompt", "empty"),
        (chat(), "chat.messages", "at least one message"),
        (chat(("user", "u"), ("robot", "x")), "chat.messages[1].role", "system, user, assistant"),
        (pb.GenerateRequest(tokens=pb.TokenInput()), "tokens.ids", "at least one"),
        (pb.GenerateRequest(prompt="p", model="other"), "model", "serves 'm'"),
        (with_sampling(temperature=-0.1), "sampling.temperature", "[0, 2]"),
        (with_sampling(temperature=2.1), "sampling.temperature", "2.0999"),
        (with_sampling(temperature=math.nan), "sampling.temperature", "nan"),
        (with_sampling(top_p=0), "sampling.top_p", "(0, 1]"),
        (with_sampling(top_p=1.5), "sampling.top_p", "1.5"),
        (with_sampling(top_p=math.nan), "sampling.top_p", "nan"),
        (with_sampling(top_k=0), "sampling.top_k", "at least 1"),
        (with_sampling(max_new_tokens=0), "sampling.max_new_tokens", "at least 1"),
        (with_sampling(stop=["x"] * 17), "sampling.stop", "at most 16"),
        (with_sampling(stop=["x", ""]), "sampling.stop[1]", "empty"),
        (with_kv(method="h3o"), "kv.method", "method is 'h3o'; give one of reasonalloc,"),
        (
            with_kv(method="wave/heads/rkv"),
            "kv.method",
            "head rule is 'heads'; give one of uniform, adakv, reasonalloc, one-pass",
        ),
        (with_kv(budget_tokens=31), "kv.budget_tokens", "at least 32"),
        (with_kv(budget_tokens=0), "kv.budget_tokens", "at least 32"),
        (with_kv(method="full", budget_tokens=64), "kv.budget_tokens", "has no budget"),
        (with_kv(method="full", prompt_mode=pb.PROMPT_MODE_EVICTABLE), "kv.prompt_mode", "evicts nothing"),
        (with_kv(prompt_mode=99), "kv.prompt_mode", "99"),
        (
            with_kv(method="random-pinned", prompt_mode=pb.PROMPT_MODE_EVICTABLE),
            "kv.prompt_mode",
            "use uniform/uniform/random",
        ),
    ],
)
def test_what_cannot_be_honoured_is_named(request_, field, told):
    with pytest.raises(InvalidRequestError) as caught:
        parse(request_)
    assert caught.value.field == field
    assert told in caught.value.message


def test_long_values_are_not_quoted_in_full():
    def message(method):
        with pytest.raises(InvalidRequestError) as caught:
            parse(with_kv(method=method))
        return caught.value.message

    assert len(message("x" * 100_000)) < len(message("x")) + 40
    assert len(message("x" * 100_000 + "/uniform/rkv")) < len(message("x/uniform/rkv")) + 40


def test_a_message_that_is_too_large_is_refused_with_both_sizes():
    with pytest.raises(InvalidRequestError, match="1003 bytes; at most 999"):
        parse(pb.GenerateRequest(prompt="p" * 1000), max_input_bytes=999)


def test_limits_themselves_are_allowed():
    parse(with_sampling(temperature=2, top_p=1, top_k=1, max_new_tokens=1, stop=["x"] * 16, seed=-1))
    assert parse(with_kv(budget_tokens=32)).kv.budget_tokens == 32
