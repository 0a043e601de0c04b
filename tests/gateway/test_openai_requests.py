"""The OpenAI-compatible API's JSON against the contract that it is translated into."""

import json

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import completion_create_params as chat_params

from reasonserve import errors
from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.errors import InvalidRequestError
from reasonserve.gateway.openai.bodies import ChatBody, CompletionBody
from reasonserve.gateway.openai.errors import STATUSES, refusal
from reasonserve.gateway.openai.requests import CHAT_MAX_TOKENS, chat_request, completion_request, parse_body
from reasonserve.status import RULES

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def chat(**more):
    return chat_request(parse_body(ChatBody, json.dumps(CHAT | more).encode()))


def completion(**more):
    return completion_request(parse_body(CompletionBody, json.dumps({"model": "m", "prompt": "hi"} | more).encode()))


def refused(call, **more):
    with pytest.raises(InvalidRequestError) as caught:
        call(**more)
    return caught.value


def test_a_bare_chat_is_limited_by_the_context_alone():
    expected = pb.GenerateRequest(
        model="m",
        chat=pb.ChatInput(messages=[pb.ChatMessage(role="user", content="hi")]),
        sampling=pb.SamplingOptions(max_new_tokens=CHAT_MAX_TOKENS),
    )
    assert chat() == expected
    assert completion().sampling.max_new_tokens == 16


def test_every_sampling_option_of_a_chat_is_translated():
    request = chat(
        temperature=0.5,
        top_p=0.5,
        top_k=5,
        min_p=0.25,
        frequency_penalty=1,
        presence_penalty=-1,
        repetition_penalty=1.5,
        max_completion_tokens=9,
        min_tokens=2,
        n=2,
        stop="x",
        stop_token_ids=[4],
        seed=-3,
        logit_bias={"7": 1.5},
        logprobs=True,
        top_logprobs=2,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}},
    )
    assert request.sampling == pb.SamplingOptions(
        temperature=0.5,
        top_p=0.5,
        top_k=5,
        min_p=0.25,
        frequency_penalty=1,
        presence_penalty=-1,
        repetition_penalty=1.5,
        max_new_tokens=9,
        min_new_tokens=2,
        num_outputs=2,
        stop=["x"],
        stop_token_ids=[4],
        seed=-3,
        logit_bias={7: 1.5},
        top_logprobs=2,
        json_schema='{"type": "integer"}',
    )


def test_every_other_option_of_a_chat_is_translated():
    request = chat(
        messages=[
            {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
            {"role": "assistant", "content": "Yes.", "reasoning_content": "old"},
        ],
        chat_template_kwargs={"enable_thinking": False},
        separate_reasoning=False,
        kv={"budget_tokens": 64, "method": "r-kv", "prompt_mode": "evictable"},
        user="somebody",
    )
    assert [(m.role, m.content) for m in request.chat.messages] == [("system", "Be brief."), ("assistant", "Yes.")]
    assert dict(request.chat.template_variables) == {"enable_thinking": False}
    assert request.HasField("separate_reasoning")
    assert not request.separate_reasoning
    assert request.kv == pb.KvOptions(budget_tokens=64, method="r-kv", prompt_mode=pb.PROMPT_MODE_EVICTABLE)


def test_log_probabilities_without_a_number_are_the_tokens_own():
    assert chat(logprobs=True).sampling.HasField("top_logprobs")
    assert chat(logprobs=True).sampling.top_logprobs == 0
    assert not chat(logprobs=False).sampling.HasField("top_logprobs")
    assert completion(logprobs=3).sampling.top_logprobs == 3


def test_a_json_object_is_a_schema_too():
    assert json.loads(chat(response_format={"type": "json_object"}).sampling.json_schema) == {"type": "object"}
    assert chat(response_format={"type": "text"}).sampling.WhichOneof("grammar") is None


@pytest.mark.parametrize("prompt", ["hi", ["hi"], [104, 105]])
def test_a_completion_takes_one_prompt(prompt):
    request = completion(prompt=prompt)
    assert request.prompt == "hi" or list(request.tokens.ids) == [104, 105]


@pytest.mark.parametrize(
    ("call", "more", "field"),
    [
        (chat, {"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        (chat, {"regex": "a", "ebnf": "b"}, "ebnf"),
        (chat, {"regex": "a", "response_format": {"type": "json_object"}}, "response_format"),
        (chat, {"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (chat, {"logit_bias": {"a": 1}}, "logit_bias"),
        (chat, {"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        (chat, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        (chat, {"temperature": "1"}, "temperature"),
        (chat, {"temperature": float("nan")}, "temperature"),
        (chat, {"stream": 1}, "stream"),
        (chat, {"tools": []}, "tools"),
        (completion, {"prompt": ["a", "b"]}, "prompt"),
        (completion, {"echo": True}, "echo"),
        (completion, {"messages": []}, "messages"),
    ],
)
def test_what_is_not_honoured_is_refused(call, more, field):
    assert refused(call, **more).field.startswith(field)


@given(st.binary(max_size=40))
def test_any_body_is_read_or_refused(data):
    with pytest.raises(InvalidRequestError):
        parse_body(ChatBody, data)


def test_every_field_of_the_official_client_is_known_or_refused_by_name():
    """A field that the client gains in a later release shows up here."""
    official = set(chat_params.CompletionCreateParamsBase.__annotations__) | {"stream"}
    honoured = official & ChatBody.model_fields.keys()
    assert official - honoured == {
        "audio",
        "function_call",
        "functions",
        "modalities",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "service_tier",
        "tool_choice",
        "tools",
        "verbosity",
        "web_search_options",
    }


def test_every_code_has_a_status():
    codes = {rule.code for rule in RULES.values() if rule} | {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
    assert codes == set(STATUSES)


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (errors.BudgetExhaustedError("full", retry_after_s=0.2), 429, {"retry-after": "1", "retry-after-ms": "200"}),
        (
            errors.BudgetExhaustedError("full", retry_after_s=9e9),
            429,
            {"retry-after": "3600", "retry-after-ms": "3600000"},
        ),
        (errors.UnavailableError("away"), 503, {"retry-after": "1", "retry-after-ms": "1000"}),
        (errors.UnauthenticatedError("who"), 401, {}),
        (errors.InvalidRequestError("sampling.top_p is 2; no.", field="sampling.top_p"), 400, {}),
        (errors.StartupError("a secret path"), 500, {}),
        (ValueError("a secret path"), 500, {}),
    ],
)
def test_errors_have_a_status_and_a_time_to_retry(error, status, headers):
    told = refusal(error)
    assert (told.status, told.headers) == (status, headers)
    assert "secret" not in json.dumps(told.body)
    assert "sampling." not in json.dumps(told.body)
