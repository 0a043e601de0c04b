"""Every sampling option takes effect on the real engine, each against an expectation that does not come from it."""

import itertools
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import jsonschema
import pytest
from transformers import AutoTokenizer

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.config import DEFAULT_MODEL
from reasonserve.models.resolve import resolve_model

pytestmark = pytest.mark.stack

Sampling = dict[str, Any]
TOKENS = 12
QUESTION = "The reason why the sky is blue is that"
LOOP = "one two one two one two one two one two one"
"""The model goes on with it, so that a penalty has something to undo."""


class Asker:
    """Asks the stack as one tenant, always for the same input unless told otherwise."""

    def __init__(self, stack: Any) -> None:
        self.metadata = (("authorization", f"Bearer {stack.create_tenant('options', limit_slots=4096)}"),)
        self.stub = stack.stub()

    def __call__(self, input: Any = None, *, extra: Any = None, **sampling: Any) -> pb.GenerateResponse:
        return self.stub.Generate(self.request(input, extra=extra, **sampling), metadata=self.metadata)

    @staticmethod
    def request(input: Any = None, *, extra: Any = None, **sampling: Any) -> pb.GenerateRequest:
        given = {"prompt": input or QUESTION}
        if isinstance(input, pb.ChatInput):
            given = {"chat": input}
        elif isinstance(input, list):
            given = {"tokens": pb.TokenInput(ids=input)}
        options = {"temperature": 0.0, "max_new_tokens": TOKENS, "ignore_eos": "stop_token_ids" not in sampling}
        return pb.GenerateRequest(**given, sampling=pb.SamplingOptions(**options | sampling), **(extra or {}))


@pytest.fixture(scope="module")
def ask(stack: Any) -> Asker:
    return Asker(stack)


@pytest.fixture(scope="module")
def greedy(ask: Asker) -> pb.GenerateResponse:
    """What the model says when it always takes the most probable token."""
    return ask(top_logprobs=20)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(resolve_model(DEFAULT_MODEL))


@pytest.mark.parametrize("sampling", [{"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-4}], ids=str)
def test_the_narrowest_filter_is_greedy(ask: Asker, greedy: pb.GenerateResponse, sampling: Sampling) -> None:
    assert ask(temperature=2.0, seed=1, **sampling).token_ids == greedy.token_ids
    assert ask(temperature=2.0, seed=1).token_ids != greedy.token_ids


def test_a_filter_of_two_draws_from_two(ask: Asker) -> None:
    answer = ask(temperature=2.0, seed=3, top_k=2, top_logprobs=2, max_new_tokens=24)
    drawn = [[top.token_id for top in place.top].index(place.token.token_id) for place in answer.logprobs]
    assert set(drawn) == {0, 1}


def test_a_seed_repeats(ask: Asker) -> None:
    first, again, other = (ask(temperature=1.0, seed=seed).token_ids for seed in (5, 5, 6))
    assert first == again != other


def test_log_probabilities_are_those_of_the_greedy_choice(greedy: pb.GenerateResponse, tokenizer: Any) -> None:
    assert [place.token.token_id for place in greedy.logprobs] == list(greedy.token_ids)
    for place in greedy.logprobs:
        logprobs = [top.logprob for top in place.top]
        assert logprobs == sorted(logprobs, reverse=True)
        assert place.token == place.top[0]
        assert len(place.top) == 20
        assert sum(map(math.exp, logprobs)) <= 1 + 1e-5
    assert "".join(place.token.text for place in greedy.logprobs) == greedy.text


def test_a_temperature_divides_the_logits(ask: Asker, greedy: pb.GenerateResponse) -> None:
    """The normaliser differs, but differences between two tokens' log-probabilities are divided exactly."""
    halved = ask(temperature=0.5, seed=1, top_logprobs=20, max_new_tokens=1)
    plain = {top.token_id: top.logprob for top in greedy.logprobs[0].top}
    scaled = {top.token_id: top.logprob for top in halved.logprobs[0].top}
    common = sorted(plain.keys() & scaled.keys())
    assert len(common) >= 15
    for a, b in itertools.pairwise(common):
        assert scaled[a] - scaled[b] == pytest.approx((plain[a] - plain[b]) / 0.5, abs=0.02)


@pytest.mark.parametrize(
    ("penalty", "times"), [("presence_penalty", (0, 0, 1, 1)), ("frequency_penalty", (0, 0, 1, 2))]
)
def test_a_penalty_is_taken_from_the_logit(ask: Asker, penalty: str, times: tuple[int, ...]) -> None:
    """A token that is forced every time leads the others by less, by as often as it was counted one step before."""

    def leads(**more: float) -> list[float]:
        answer = ask(logit_bias={28: 30.0}, max_new_tokens=4, top_logprobs=2, **more)
        assert set(answer.token_ids) == {28}
        return [place.top[0].logprob - place.top[1].logprob for place in answer.logprobs]

    expected = [lead - 1.5 * count for lead, count in zip(leads(), times, strict=True)]
    assert leads(**{penalty: 1.5}) == pytest.approx(expected, abs=0.01)


def test_penalties_break_a_loop(ask: Asker) -> None:
    plain = ask(LOOP, max_new_tokens=16)
    assert len(set(plain.token_ids)) <= 4
    for penalty in ({"frequency_penalty": 2.0}, {"presence_penalty": 2.0}, {"repetition_penalty": 2.0}):
        assert len(set(ask(LOOP, max_new_tokens=16, **penalty).token_ids)) > len(set(plain.token_ids))


def test_a_bias_forces_or_forbids_a_token(ask: Asker, greedy: pb.GenerateResponse) -> None:
    assert set(ask(logit_bias={28: 100.0}, max_new_tokens=4).token_ids) == {28}
    forbidden = greedy.token_ids[0]
    assert forbidden not in ask(logit_bias={forbidden: -100.0}).token_ids


def test_a_stop_string_ends_before_itself_however_the_text_comes(ask: Asker, greedy: pb.GenerateResponse) -> None:
    stop = greedy.text[len(greedy.text) // 2 :][:6]
    answer = ask(stop=[stop, "never said"])
    assert answer.text == greedy.text.split(stop)[0]
    assert (answer.finish_reason, answer.matched_stop) == (pb.FINISH_REASON_STOP, stop)
    parts = list(ask.stub.GenerateStream(ask.request(stop=[stop]), metadata=ask.metadata))
    assert "".join(part.text for part in parts) == answer.text
    assert parts[-1].matched_stop == stop


def test_a_stop_token_ends_after_itself(ask: Asker, greedy: pb.GenerateResponse) -> None:
    stop = greedy.token_ids[5]
    answer = ask(stop_token_ids=[stop])
    assert list(answer.token_ids) == list(greedy.token_ids)[: list(greedy.token_ids).index(stop) + 1]
    assert (answer.finish_reason, answer.matched_stop) == (pb.FINISH_REASON_STOP, str(stop))


def test_generation_goes_on_to_the_least_length(ask: Asker, greedy: pb.GenerateResponse) -> None:
    stop = greedy.token_ids[0]
    assert ask(stop_token_ids=[stop]).usage.output_tokens == 1
    longer = ask(stop_token_ids=[stop], min_new_tokens=8)
    assert longer.usage.output_tokens >= 8
    assert stop not in list(longer.token_ids)[:7]


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_grammars_are_matched(ask: Asker) -> None:
    asked = {
        "schema": {"json_schema": json.dumps(SCHEMA), "max_new_tokens": 64},
        "regex": {"regex": "[0-9]{3}-[0-9]{4}", "max_new_tokens": 32},
        "ebnf": {"ebnf": 'root ::= "yes" | "no"', "max_new_tokens": 32},
    }
    with ThreadPoolExecutor(len(asked)) as pool:
        futures = {name: pool.submit(ask, ignore_eos=False, **sampling) for name, sampling in asked.items()}
        answers = {name: future.result() for name, future in futures.items()}
    jsonschema.validate(json.loads(answers["schema"].text), SCHEMA)
    assert re.fullmatch("[0-9]{3}-[0-9]{4}", answers["regex"].text)
    assert answers["ebnf"].text in ("yes", "no")
    assert {answer.finish_reason for answer in answers.values()} == {pb.FINISH_REASON_STOP}


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"regex": "("}, "sampling.regex"),
        ({"ebnf": "root ::= ("}, "sampling.ebnf"),
        ({"json_schema": '{"type": "no such type"}'}, "sampling.json_schema"),
        ({"stop_token_ids": [1 << 20]}, "sampling.stop_token_ids[0]"),
        ({"logit_bias": {1 << 20: 1.0}}, "sampling.logit_bias"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_engine_cannot_enforce_is_refused(ask: Asker, sampling: Sampling, field: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        ask(**sampling)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().startswith(field)
    assert not re.search(r"/\w+/|\d\d:\d\d:\d\d", refused.value.details())


def test_outputs_differ_and_each_has_its_own_memory(ask: Asker) -> None:
    answer = ask(num_outputs=3, temperature=1.0, seed=11)
    alone = [ask(temperature=1.0, seed=11 + index) for index in range(3)]
    outputs = [answer, *answer.more_outputs]
    assert [output.index for output in answer.more_outputs] == [1, 2]
    assert len({output.text for output in outputs}) == 3
    assert [output.token_ids[0] for output in outputs] == [single.token_ids[0] for single in alone]
    assert answer.usage.output_tokens == 3 * TOKENS
    assert answer.usage.peak_kv_slots == sum(output.kv.peak_slots for output in outputs)
    assert all(output.kv.peak_slots >= TOKENS - 1 for output in outputs)


def test_every_output_is_reserved_for_and_released(stack: Any, ask: Asker, wait_for: Any) -> None:
    request = ask.request(num_outputs=2, max_new_tokens=2000, extra={"kv": pb.KvOptions(budget_tokens=64)})
    call = ask.stub.GenerateStream(request, metadata=ask.metadata)
    prompt = ask.stub.CountTokens(pb.CountTokensRequest(prompt=QUESTION), metadata=ask.metadata).input_tokens
    seen = {part.more_outputs[0].index if part.more_outputs else 0 for part in itertools.islice(call, 8)}
    assert seen == {0, 1}
    wait_for(lambda: stack.tenant_status("options").reserved_slots > 0)
    reserved = stack.tenant_status("options").reserved_slots
    assert 2 * (64 + 128) + prompt <= reserved <= 2 * (prompt + 64 + 128)  # whole blocks of the prompt may be shared
    call.cancel()
    wait_for(lambda: stack.tenant_status("options").reserved_slots == 0 and stack.used_slots() == 0)


def chat(content: str, **variables: Any) -> pb.ChatInput:
    turn = pb.ChatInput(messages=[pb.ChatMessage(role="user", content=content)])
    turn.template_variables.update(variables)
    return turn


def test_reasoning_comes_apart_from_the_answer(ask: Asker) -> None:
    """No small model reasons of itself, so a grammar makes this one; the parser is SGLang's for Qwen3."""
    grammar = {"ebnf": 'root ::= "<think>" [a-z ]{8,16} "</think>" ("yes" | "no")', "max_new_tokens": 48}
    asked = chat("Is water wet?", enable_thinking=True)
    apart = ask(asked, ignore_eos=False, **grammar)
    inline = ask(asked, ignore_eos=False, extra={"separate_reasoning": False}, **grammar)
    assert re.fullmatch("[a-z ]{8,16}", apart.reasoning)
    assert apart.text in ("yes", "no")
    assert inline.text == f"<think>{apart.reasoning}</think>{apart.text}"
    assert inline.reasoning == ""
    assert 3 <= apart.usage.reasoning_tokens < apart.usage.output_tokens
    assert inline.usage.reasoning_tokens == 0


def test_inputs_are_counted_as_they_are_used(ask: Asker, tokenizer: Any) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    counted = ask.stub.CountTokens(pb.CountTokensRequest(chat=chat(QUESTION)), metadata=ask.metadata)
    assert list(counted.token_ids) == expected
    by_chat, by_ids = ask(chat(QUESTION)), ask(expected)
    assert by_chat.usage.input_tokens == counted.input_tokens == len(expected)
    assert by_chat.token_ids == by_ids.token_ids
    assert by_ids.usage.cached_tokens == len(expected) - 1


def test_the_model_says_what_it_can_do(ask: Asker, tokenizer: Any) -> None:
    (model,) = ask.stub.ListModels(pb.ListModelsRequest(), metadata=ask.metadata).models
    assert (model.name, model.context_length, model.vocab_size) == (DEFAULT_MODEL, 8192, len(tokenizer))
    assert (model.grammar_backend, model.reasoning_parser, model.chat) == ("xgrammar", "qwen3", True)
    assert (model.pool_slots, model.bytes_per_slot) == (4096, 2 * 30 * 3 * 64 * 2)
    assert {"reasonalloc", "full"} <= set(model.kv_methods)
    assert model.profile
