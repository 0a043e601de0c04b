"""The OpenAI-compatible API on a real Ray Serve, by the official client, with the fake engine."""

import json
import time

import httpx
import openai
import pytest

from reasonserve.replica.fake_engine import SECRET
from reasonserve.telemetry import names
from reasonserve.telemetry.tree import read_trace

pytestmark = pytest.mark.timeout(300)

CHAT = [{"role": "user", "content": "hello"}]
RENDERED = "user: hello"


@pytest.fixture(scope="module")
def client(data_plane):
    with openai.OpenAI(base_url=f"{data_plane.http}/v1", api_key="key-of-acme", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def raw(data_plane):
    with httpx.Client(base_url=data_plane.http, headers={"authorization": "Bearer key-of-acme"}) as made:
        yield made


def repeated(text, tokens):
    return (text * tokens)[:tokens]


def test_a_chat_is_answered(client):
    answer = client.chat.completions.create(model="fake", messages=CHAT, max_tokens=20, n=2)
    assert [choice.message.content for choice in answer.choices] == [repeated(RENDERED, 20)] * 2
    assert [choice.finish_reason for choice in answer.choices] == ["length"] * 2
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (11, 40, 51)
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0
    assert answer.usage.peak_kv_slots == 2 * (11 + 20)
    assert answer.model == "fake"
    assert answer._request_id


def test_kv_options_ride_in_the_extra_body(client):
    answer = client.chat.completions.create(
        model="fake", messages=CHAT, max_tokens=400, extra_body={"kv": {"budget_tokens": 64, "method": "r-kv"}}
    )
    kv = answer.choices[0].kv
    assert (kv["method"], kv["budget_tokens"], kv["peak_slots"]) == ("r-kv", 64, 11 + 64 + 128)
    assert kv["rounds"] >= 1


def test_a_chat_streams_to_the_same_text_with_its_usage(client):
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model="fake", messages=CHAT, max_tokens=30, stream=True, stream_options=options)
    )
    *told, closing = chunks
    assert told[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == repeated(RENDERED, 30)
    assert [chunk.choices[0].finish_reason for chunk in told] == [None] * (len(told) - 1) + ["length"]
    assert told[-1].choices[0].kv["method"] == "reasonalloc"
    assert (closing.choices, closing.usage.completion_tokens) == ([], 30)
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_plain_completions_take_text_and_token_ids(client):
    text = client.completions.create(model="fake", prompt="ab")
    tokens = client.completions.create(model="fake", prompt=list(b"ab"), stream=True)
    assert text.choices[0].text == repeated("ab", 16)
    assert text.usage.completion_tokens == 16
    assert "".join(chunk.choices[0].text for chunk in tokens) == repeated("ab", 16)


def test_models_are_listed(client):
    (model,) = client.models.list()
    assert (model.id, model.owned_by) == ("fake", "reasonserve")
    assert client.models.retrieve("fake").reasonserve["context_length"] == 4096
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("bad", "param", "told"),
    [
        ({"top_p": 2}, "top_p", "use a number in (0, 1]"),
        ({"max_tokens": 0}, "max_tokens", "use at least 1"),
        ({"n": 9}, "n", "[1, 8]"),
        ({"messages": [{"role": "pirate", "content": "arr"}]}, "messages[0].role", "system"),
        ({"messages": []}, "messages", "at least one"),
        ({"extra_body": {"kv": {"budget_tokens": 300}}}, "kv.budget_tokens", "32 to 256"),
        ({"extra_body": {"kv": {"budget": 300}}}, "kv.budget", "not a field"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "leave it out"),
        ({"extra_body": {"top_k": "many"}}, "top_k", "valid integer"),
        ({"extra_body": {"seed": 1 << 70}}, "seed", "less than"),
        ({"extra_body": {"regex": "a+"}}, "regex", "engine.grammar_backend"),
        ({"top_logprobs": 2}, "logprobs", "set logprobs to true"),
    ],
)
def test_what_cannot_be_honoured_is_named(client, bad, param, told, stream):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{"model": "fake", "messages": CHAT, "stream": stream} | bad)
    assert refused.value.param == param
    assert param in refused.value.message
    assert told in refused.value.message
    assert refused.value.type == "invalid_request_error"


def test_an_unknown_model_and_an_unknown_caller_have_their_codes(client, data_plane):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-5", messages=CHAT)
    assert missing.value.code == "model_not_found"
    stranger = openai.OpenAI(base_url=f"{data_plane.http}/v1", api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError) as unknown:
        stranger.chat.completions.create(model="fake", messages=CHAT, extra_body={"nonsense": 1})
    assert unknown.value.code == "unauthenticated"


def test_an_exhausted_tenant_is_told_when_to_retry(data_plane, client):
    limited = {"model": "fake", "messages": [{"role": "user", "content": "!slow"}], "max_tokens": 4000}
    with openai.OpenAI(base_url=f"{data_plane.http}/v1", api_key="key-of-tiny", max_retries=0) as tiny:
        kv = {"kv": {"budget_tokens": 200}}
        with tiny.chat.completions.create(**limited, stream=True, extra_body=kv) as holding:
            next(holding)
            with pytest.raises(openai.RateLimitError) as refused:
                tiny.chat.completions.create(
                    model="fake",
                    messages=CHAT,
                    max_tokens=200,
                    extra_body={"kv": {"method": "full"}},
                    extra_headers={"x-deadline-ms": "500"},
                )
        assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60
        assert float(refused.value.response.headers["retry-after-ms"]) > 0
        assert refused.value.code == "budget_exhausted"
    data_plane.controller.wait_for(lambda report: reserved(report, "tiny") == 0)


def reserved(report, tenant_id):
    return sum(t.reserved_slots for t in report.tenants if t.tenant_id == tenant_id)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_the_engine(data_plane, raw, stream):
    body = {
        "model": "fake",
        "messages": [{"role": "user", "content": "!slow"}],
        "stream": stream,
        "max_tokens": 4000,
        "kv": {"budget_tokens": 64},
    }
    running = len("user: !slow") + 64 + 128
    if stream:
        with raw.stream("POST", "/v1/chat/completions", json=body) as response:
            next(response.iter_lines())
            data_plane.controller.wait_for(lambda report: reserved(report, "acme") == running)
    else:
        with pytest.raises(httpx.ReadTimeout):
            raw.post("/v1/chat/completions", json=body, timeout=httpx.Timeout(5.0, read=0.7))
    data_plane.controller.wait_for(lambda report: reserved(report, "acme") == 0 and report.used_slots == 0)


def test_streams_left_at_any_moment_release(data_plane, raw):
    body = {"model": "fake", "messages": [{"role": "user", "content": "!slow"}], "stream": True, "max_tokens": 4000}
    for events in range(12):
        with raw.stream("POST", "/v1/chat/completions", json=body | {"kv": {"budget_tokens": 32}}) as response:
            lines = response.iter_lines()
            for _ in range(2 * (events % 4) + 1):
                next(lines)
    active = [t.active_requests for t in data_plane.controller.settled().tenants if t.tenant_id == "acme"]
    assert active == [0]


def test_a_deadline_is_kept(raw):
    body = {"model": "fake", "messages": [{"role": "user", "content": "!slow"}], "max_tokens": 4000}
    late = raw.post("/v1/chat/completions", json=body, headers={"x-deadline-ms": "200"})
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b"x" * 70000, 413),
        ("GET", "/v1/chat/completions", b"", 405),
        ("POST", "/v1/embeddings", b"{}", 404),
    ],
)
def test_every_refusal_has_openais_shape(raw, method, path, content, status):
    response = raw.request(method, path, content=content)
    assert response.status_code == status
    assert {"message", "type", "param", "code"} == response.json()["error"].keys()


def test_an_unforeseen_error_tells_the_client_nothing(raw):
    body = {"model": "fake", "messages": [{"role": "user", "content": "!raise"}]}
    response = raw.post("/v1/chat/completions", json=body)
    assert response.status_code == 500
    assert not any(word in response.text for word in (SECRET, "Traceback", "RuntimeError", ".py", "actor", "127.0.0.1"))
    streamed = raw.post("/v1/chat/completions", json=body | {"stream": True})
    assert streamed.status_code == 500


def test_a_stream_that_breaks_ends_with_an_error_and_no_text_twice(raw):
    # The prompt's own letters are the answer, and the engine dies of "!raise" before the first: so a long one is cut.
    body = {"model": "fake", "messages": [{"role": "user", "content": "!slow"}], "max_tokens": 4000, "stream": True}
    with raw.stream("POST", "/v1/chat/completions", json=body, headers={"x-deadline-ms": "400"}) as response:
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert response.status_code == 200
    assert json.loads(events[-1])["error"]["code"] == "deadline_exceeded"
    text = "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1])
    assert text == repeated("user: !slow", len(text))
    assert len(text) > 1


def test_the_callers_trace_goes_on(data_plane, raw):
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    body = {"model": "fake", "messages": CHAT, "max_tokens": 4}
    response = raw.post(
        "/v1/chat/completions", json=body, headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    )
    assert response.headers["x-request-id"]
    deadline, found = time.monotonic() + 15, set()
    while not {names.SPAN_ADMISSION, "chat fake"} <= found:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
        spans = read_trace(data_plane.trace_file, trace_id)
        found = {span["name"] for span in spans}
    known = {span["span_id"] for span in spans}
    assert {span["parent_id"] for span in spans} - known <= {"b7ad6b7169203331"}
