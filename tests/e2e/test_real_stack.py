"""What ReasonServe promises, on real weights through the whole path."""

import json
import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import psutil
import pytest
from google.rpc import error_details_pb2, status_pb2

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.cli import tracing
from reasonserve.telemetry import names
from reasonserve.telemetry.tracing import root_span, trace_id_of

pytestmark = pytest.mark.stack

BUDGET, BUFFER = 128, 128
RELEASE_WITHIN_S = 2.0
"""The bound that is specified for a lost client, so here a wait is a test."""
QUESTION = "Why is the sky blue, and why are sunsets red? Think step by step and explain every step in detail."

STEMS = {
    QUESTION: ("sky", "light", "blue", "red", "sun", "colo", "atmosphere", "scatter", "wavelength", "air"),
    "Explain step by step how a rainbow forms.": (
        "light",
        "water",
        "rain",
        "colo",
        "refract",
        "drop",
        "sun",
        "ang",
    ),
    "Explain in detail how bread is made, step by step.": (
        "bread",
        "dough",
        "flour",
        "yeast",
        "oven",
        "bak",
        "mix",
    ),
    "Explain the water cycle in detail, step by step.": (
        "water",
        "evapor",
        "rain",
        "cloud",
        "cycle",
        "air",
        "condens",
    ),
}
"""Questions, and stems of words that a sentence about each would use."""


def long_request(max_new_tokens: int, **kv: Any) -> pb.GenerateRequest:
    """A question that the model goes on thinking about."""
    return pb.GenerateRequest(
        chat=pb.ChatInput(messages=[pb.ChatMessage(role="user", content=QUESTION)]),
        sampling=pb.SamplingOptions(max_new_tokens=max_new_tokens, temperature=0.6, seed=7, ignore_eos=True),
        kv=pb.KvOptions(**{"budget_tokens": BUDGET, "method": "reasonalloc"} | kv),
    )


def metadata(key: str) -> tuple[tuple[str, str]]:
    return (("authorization", f"Bearer {key}"),)


def holds_nothing(stack: Any, tenant: str) -> bool:
    seen = stack.tenant_status(tenant)
    return bool(seen.active_requests == seen.reserved_slots == 0 and stack.used_slots() == 0)


def details(error: grpc.RpcError) -> dict[str, Any]:
    """Unpacks the standard error details by type name."""
    raw = dict(error.trailing_metadata())["grpc-status-details-bin"]
    kinds = (error_details_pb2.BadRequest, error_details_pb2.RetryInfo, error_details_pb2.ErrorInfo)
    found = {}
    for packed in status_pb2.Status.FromString(raw).details:
        for kind in kinds:
            message = kind()
            if packed.Unpack(message):
                found[kind.__name__] = message
    return found


Answers = tuple[list[pb.GenerateResponse], pb.GenerateResponse]


@pytest.fixture(scope="module")
def key(stack: Any) -> str:
    """The key of a tenant with room for every test."""
    return str(stack.create_tenant("roomy", limit_slots=4096))


@pytest.fixture(scope="module")
def long_answers(stack: Any, key: str) -> Answers:
    """A long answer under a budget, as it grew, and a shorter one without, which ran beside it."""
    whole = long_request(400, method="full")
    whole.kv.ClearField("budget_tokens")
    with stack.gateway(key) as gateway, ThreadPoolExecutor(1) as beside:
        uncompressed = beside.submit(gateway.generate, whole)
        return list(gateway.stream(long_request(1024))), uncompressed.result()


def test_a_long_answer_holds_no_more_than_budget_and_buffer(long_answers: Answers) -> None:
    parts, _ = long_answers
    last = parts[-1]
    private_prompt = last.usage.input_tokens - last.usage.cached_tokens
    assert last.usage.output_tokens == sum(len(part.token_ids) for part in parts) == 1024
    assert last.kv.budget_tokens == BUDGET
    assert last.kv.profile
    assert BUDGET < last.kv.peak_slots <= BUDGET + BUFFER + private_prompt
    assert max(part.progress.held_slots for part in parts) <= last.kv.peak_slots
    assert last.kv.rounds >= 6
    assert last.kv.kept_cells > 0
    assert last.kv.evicted_cells > 0


def sentences_after_the_first_round(stack: Any, key: str, question: str, seed: int) -> list[list[str]]:
    """Asks a question and returns the words of each sentence that was written with a compressed cache.

    What follows the end of the model's answer is left out: there it makes up other conversations.
    """
    request = long_request(420, budget_tokens=64)
    request.chat.messages[0].content = question
    request.sampling.seed = seed
    with stack.gateway(key) as gateway:
        parts = list(gateway.stream(request))
    assert parts[-1].kv.rounds >= 1
    later = "".join(part.text for part in parts if part.progress.rounds).split("\nuser")[0]
    return [words for sentence in re.split(r"[.!?:]\s", later) if len(words := sentence.split()) > 1]


def test_after_a_round_the_text_still_reads_as_sentences_about_the_question(stack: Any, key: str) -> None:
    with ThreadPoolExecutor(len(STEMS)) as pool:
        asked = [pool.submit(sentences_after_the_first_round, stack, key, q, n) for n, q in enumerate(STEMS)]
        answers = [future.result() for future in asked]
    read, about = 0, 0
    for stems, sentences in zip(STEMS.values(), answers, strict=True):
        read += sum(3 <= len(words) <= 60 for words in sentences)
        about += sum(any(stem in word.lower() for word in words for stem in stems) for words in sentences)
    total = sum(map(len, answers))
    assert total >= 12
    assert read >= 0.8 * total
    assert about >= 0.5 * total


def test_without_compression_the_cache_grows_by_a_slot_a_token(long_answers: Answers) -> None:
    _, answer = long_answers
    assert answer.kv.peak_slots >= 400 - 1  # The last token is never written.
    assert (answer.kv.rounds, answer.kv.evicted_cells) == (0, 0)


def test_a_full_tenant_is_told_when_to_retry_while_another_is_served(stack: Any, key: str) -> None:
    small = stack.create_tenant("small", limit_slots=400)
    stub = stack.stub()
    held = stub.GenerateStream(long_request(3000), metadata=metadata(small))
    next(held)
    with pytest.raises(grpc.RpcError) as refused:
        stub.Generate(long_request(300), metadata=metadata(small))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details(refused.value)["RetryInfo"].retry_delay.ToMilliseconds() > 0
    other = stub.Generate(long_request(8), metadata=metadata(key))
    assert other.usage.output_tokens == 8
    assert held.is_active()
    held.cancel()


@pytest.mark.parametrize("presented", [(), metadata("not-a-key"), (("authorization", "Basic abc"),)])
def test_a_caller_without_a_good_key_is_unauthenticated(stack: Any, presented: tuple[tuple[str, str], ...]) -> None:
    stub = stack.stub()
    with pytest.raises(grpc.RpcError) as unary:
        stub.Generate(long_request(8), metadata=presented)
    assert unary.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(grpc.RpcError) as stream:
        list(stub.GenerateStream(long_request(8), metadata=presented))
    assert stream.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.GenerateRequest(), "input"),
        (pb.GenerateRequest(prompt="a", sampling=pb.SamplingOptions(temperature=-1)), "sampling.temperature"),
        (pb.GenerateRequest(prompt="a", sampling=pb.SamplingOptions(max_new_tokens=0)), "sampling.max_new_tokens"),
        (pb.GenerateRequest(prompt="a", kv=pb.KvOptions(method="magic")), "kv.method"),
        (pb.GenerateRequest(prompt="a", kv=pb.KvOptions(budget_tokens=4096)), "kv.budget_tokens"),
        (pb.GenerateRequest(tokens=pb.TokenInput(ids=[1 << 30])), "tokens.ids[0]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_field_is_named(stack: Any, key: str, request_: pb.GenerateRequest, field: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stack.stub().Generate(request_, metadata=metadata(key))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(refused.value)["BadRequest"].field_violations[0].field == field
    assert not re.search(r"Traceback|File \"|/\w+/\w+\.py", refused.value.details())


def test_a_killed_controller_forgets_nothing(stack: Any, key: str, wait_for: Any) -> None:
    before, restarts = stack.tenant("roomy"), stack.state.controller_restarts
    os.kill(stack.state.controller.pid, signal.SIGKILL)
    with stack.gateway(key) as gateway:  # Meanwhile, the replica serves on its last lease.
        assert gateway.generate(long_request(8)).usage.output_tokens == 8
    wait_for(lambda: stack.state.controller_restarts == restarts + 1)
    wait_for(stack.has_replica)
    assert stack.tenant("roomy") == before
    with stack.gateway(key) as gateway:
        assert gateway.generate(long_request(8)).usage.output_tokens == 8


def test_a_killed_client_gives_its_memory_back(stack: Any, wait_for: Any) -> None:
    secret = stack.create_tenant("doomed", limit_slots=2048)
    wait_for(lambda: stack.used_slots() == 0)
    command = stack.command("generate", QUESTION, "--budget", str(BUDGET), "-n", "3000", "--ignore-eos")
    process = subprocess.Popen(
        command, env=stack.environment(REASONSERVE_API_KEY=secret), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.read(1)
    wait_for(lambda: stack.tenant_status("doomed").active_requests == 1)
    assert stack.tenant_status("doomed").reserved_slots >= BUDGET + BUFFER
    wait_for(lambda: stack.used_slots() >= BUDGET)
    psutil.Process(process.pid).kill()

    wait_for(lambda: holds_nothing(stack, "doomed"), RELEASE_WITHIN_S)
    process.communicate()


def test_a_stream_past_its_deadline_gives_its_memory_back(stack: Any, wait_for: Any) -> None:
    secret = stack.create_tenant("hurried", limit_slots=2048)
    wait_for(lambda: stack.used_slots() == 0)
    deadline = (*metadata(secret), ("x-deadline-ms", "6000"))
    stream = stack.stub().GenerateStream(long_request(3000), metadata=deadline)
    assert next(stream).text
    with pytest.raises(grpc.RpcError) as late:
        list(stream)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for(lambda: holds_nothing(stack, "hurried"), RELEASE_WITHIN_S)


def test_a_request_is_one_connected_trace(stack: Any, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spans_file = stack.state.trace_file
    monkeypatch.setenv(tracing.TRACE_FILE_VARIABLE, str(spans_file))
    with tracing.traced(spans_file) as provider, stack.gateway(key) as gateway, root_span(provider) as span:
        answer = list(gateway.stream(long_request(320)))[-1]
    spans = tracing.wait_for_trace(spans_file, trace_id_of(span))
    assert tracing.is_connected(spans), json.dumps(spans, indent=1)
    by_name = {record["name"]: record for record in spans}
    assert {names.SPAN_CLIENT, names.SPAN_ADMISSION} <= by_name.keys()
    entrance = by_name["reasonserve.api.v1.GenerationService/GenerateStream"]
    assert entrance["attributes"][names.TENANT_ID] == by_name[names.SPAN_ADMISSION]["attributes"][names.TENANT_ID]
    rounds = [event for record in spans for event in record["events"] if event["name"] == names.EVENT_ROUND]
    assert len(rounds) == answer.kv.rounds > 0
    assert sum(event["attributes"][names.ROUND_EVICTED_CELLS] for event in rounds) == answer.kv.evicted_cells


def test_a_prompt_is_cached_for_its_tenant_and_for_no_other(stack: Any) -> None:
    """Else a tenant could find out what another one asked, by how soon it is answered."""
    keys = [stack.create_tenant(tenant, limit_slots=1024) for tenant in ("confidant", "stranger")]
    prompt = " ".join(f"Secret number {n * n} of the confidant." for n in range(20))
    request = pb.GenerateRequest(prompt=prompt, sampling=pb.SamplingOptions(max_new_tokens=1))

    def cached(secret: str) -> tuple[int, int]:
        usage = stack.stub().Generate(request, metadata=metadata(secret)).usage
        return usage.cached_tokens, usage.input_tokens

    whole = cached(keys[0])[1]
    assert whole > 100
    assert cached(keys[0]) == (whole - 1, whole)  # the last token is always computed
    assert cached(keys[1]) == (0, whole)
    assert cached(keys[1]) == (whole - 1, whole)


def test_nothing_listens_to_the_network(stack: Any) -> None:
    """SGLang's sockets included; a stack without a front is for its own machine."""
    host = psutil.Process(stack.state.host.pid)
    addresses = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in [host, *host.children(recursive=True)]
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address for address in addresses if not address.startswith("127.")} == set()
    assert addresses
