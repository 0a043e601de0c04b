"""The data plane on a real Ray Serve, with the fake engine."""

import json
import subprocess
import sys
import time

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.replica.fake_engine import SECRET
from reasonserve.telemetry import names
from reasonserve.telemetry.tracing import TraceparentInterceptor, root_span, set_up_tracing, trace_id_of
from reasonserve.telemetry.tree import read_trace

pytestmark = pytest.mark.timeout(300)

ACME = (("authorization", "Bearer key-of-acme"), ("application", "reasonserve"))
TINY = (("authorization", "Bearer key-of-tiny"), ("application", "reasonserve"))


@pytest.fixture
def stub(data_plane):
    with data_plane.channel() as channel:
        yield data_plane.stub(channel)


def request(prompt="hello", *, max_new_tokens=8, **kv):
    return pb.GenerateRequest(
        prompt=prompt, sampling=pb.SamplingOptions(max_new_tokens=max_new_tokens), kv=pb.KvOptions(**kv)
    )


def refusal(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def details(error, kind):
    for packed in rpc_status.from_call(error).details:
        detail = kind()
        if packed.Unpack(detail):
            return detail
    raise AssertionError(f"no {kind.__name__} in the status")


def reserved(report, tenant_id):
    return sum(t.reserved_slots for t in report.tenants if t.tenant_id == tenant_id)


def test_unary_returns_the_whole_answer(stub):
    answer = stub.Generate(request(max_new_tokens=400, budget_tokens=64), metadata=ACME)
    assert answer.text == "hello" * 80
    assert list(answer.token_ids) == list(b"hello" * 80)
    assert answer.finish_reason == pb.FINISH_REASON_LENGTH
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 400)
    assert (answer.kv.method, answer.kv.budget_tokens, answer.kv.profile) == ("reasonalloc", 64, "fake-profile")
    assert answer.kv.peak_slots == 5 + 64 + 128
    assert answer.kv.rounds == 2
    assert answer.kv.kept_cells > 0
    assert answer.request_id
    assert not answer.HasField("progress")


def test_stream_concatenates_to_the_unary_answer(stub):
    parts = list(stub.GenerateStream(request(max_new_tokens=12), metadata=ACME))
    assert "".join(part.text for part in parts) == "hellohellohe"
    assert [part.finish_reason for part in parts[:-1]] == [pb.FINISH_REASON_UNSPECIFIED] * (len(parts) - 1)
    assert parts[-1].usage.output_tokens == 12
    assert all(part.HasField("progress") and part.request_id == parts[0].request_id for part in parts)


@pytest.mark.parametrize("key", [None, "Bearer wrong", "Basic key-of-acme"])
def test_unknown_callers_are_unauthenticated(stub, key):
    metadata = (("application", "reasonserve"), *((("authorization", key),) if key else ()))
    error = refusal(lambda: stub.Generate(request(), metadata=metadata))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert details(error, error_details_pb2.ErrorInfo).reason == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (request("hi", method="none-such"), "kv.method"),  # refused by the gateway
        (request("hi", budget_tokens=300), "kv.budget_tokens"),  # refused by the replica: the tenant's range
        (pb.GenerateRequest(tokens=pb.TokenInput(ids=[999])), "tokens.ids[0]"),  # refused by the replica: the model
    ],
)
def test_invalid_fields_are_named(stub, bad, field):
    error = refusal(lambda: list(stub.GenerateStream(bad, metadata=ACME)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(error, error_details_pb2.BadRequest).field_violations[0].field == field
    assert field in error.details()


def test_exhausted_tenant_is_told_when_to_retry(stub, data_plane):
    holding = stub.GenerateStream(request("!slow", max_new_tokens=4000, budget_tokens=200), metadata=TINY)
    next(holding)
    error = refusal(lambda: stub.Generate(request(max_new_tokens=200, method="full"), metadata=TINY))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    delay = details(error, error_details_pb2.RetryInfo).retry_delay
    assert 0.1 <= delay.ToNanoseconds() / 1e9 <= 60
    holding.cancel()
    data_plane.controller.wait_for(lambda report: reserved(report, "tiny") == 0)
    assert stub.Generate(request(max_new_tokens=200, method="full"), metadata=TINY).usage.output_tokens == 200


@pytest.mark.parametrize("application", ["reasonserve", "exploding"])
def test_an_unforeseen_error_tells_the_client_nothing(stub, application):
    metadata = (("authorization", "Bearer key-of-acme"), ("application", application))
    for call in (
        lambda: stub.Generate(request("!raise"), metadata=metadata),
        lambda: list(stub.GenerateStream(request("!raise"), metadata=metadata)),
    ):
        error = refusal(call)
        assert error.code() is grpc.StatusCode.INTERNAL
        told = error.details() + repr(error.trailing_metadata())
        assert error.details() == rpc_status.from_call(error).message
        assert not any(word in told for word in (SECRET, "Traceback", "RuntimeError", ".py", "actor", "127.0.0.1"))


def test_own_deadline_is_kept_and_releases(stub, data_plane):
    metadata = (*ACME, ("x-deadline-ms", "300"))
    error = refusal(lambda: stub.Generate(request("!slow", max_new_tokens=2000, budget_tokens=64), metadata=metadata))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    data_plane.controller.wait_for(lambda report: reserved(report, "acme") == 0)


@pytest.mark.parametrize("how", ["unary cancelled", "stream cancelled", "grpc deadline"])
def test_an_abandoned_call_releases_its_reservation(stub, data_plane, how):
    long = request("!slow", max_new_tokens=4000, budget_tokens=64)
    if how == "unary cancelled":
        call = stub.Generate.future(long, metadata=ACME)
    else:
        call = stub.GenerateStream(long, metadata=ACME, timeout=1.0 if how == "grpc deadline" else None)
        next(call)
    data_plane.controller.wait_for(lambda report: reserved(report, "acme") == 5 + 64 + 128 and report.used_slots > 5)
    if how == "grpc deadline":
        assert refusal(lambda: list(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    else:
        call.cancel()
    # The reservation is released and the engine has stopped: the fake counts what runs.
    data_plane.controller.wait_for(lambda report: reserved(report, "acme") == 0 and report.used_slots == 0)


def test_streams_cancelled_while_their_messages_are_sent_release(stub, data_plane):
    # Each is cancelled at another moment; some while the proxy writes to the client.
    for tokens in range(1, 25):
        call = stub.GenerateStream(request("!slow", max_new_tokens=4000, budget_tokens=32), metadata=ACME)
        for _ in range(tokens % 4 + 1):
            next(call)
        call.cancel()
    active = [t.active_requests for t in data_plane.controller.settled().tenants if t.tenant_id == "acme"]
    assert active == [0]


def test_a_killed_client_releases_its_reservation(data_plane):
    script = (
        "import grpc\n"
        "from reasonserve.api.v1 import generation_service_pb2 as pb, generation_service_pb2_grpc as g\n"
        f"stub = g.GenerationServiceStub(grpc.insecure_channel({data_plane.endpoint!r}))\n"
        "ask = pb.GenerateRequest(prompt='!slow', sampling=pb.SamplingOptions(max_new_tokens=4000))\n"
        f"for part in stub.GenerateStream(ask, metadata={ACME!r}):\n"
        "    print('running', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as client:
        assert client.stdout.readline().strip() == b"running"
        data_plane.controller.wait_for(lambda report: reserved(report, "acme") > 0)
        client.kill()
    data_plane.controller.wait_for(lambda report: reserved(report, "acme") == 0 and report.used_slots == 0)


def roots(spans):
    known = {span["span_id"] for span in spans}
    return [span["name"] for span in spans if span["parent_id"] not in known]


def test_one_connected_trace_without_prompt_text(data_plane, monkeypatch):
    monkeypatch.setenv("REASONSERVE_TRACE_FILE", str(data_plane.trace_file))
    provider = set_up_tracing("test-client")
    secret_prompt = "zebra"
    with data_plane.channel() as channel, root_span(provider) as span:
        stub = data_plane.stub(grpc.intercept_channel(channel, TraceparentInterceptor()))
        stub.Generate(request(secret_prompt, max_new_tokens=400, budget_tokens=64), metadata=ACME)
        trace_id = trace_id_of(span)
    provider.shutdown()

    # The servers' outer spans end after the client has its answer.
    deadline = time.monotonic() + 15
    while (orphans := roots(spans := read_trace(data_plane.trace_file, trace_id))) != [names.SPAN_CLIENT]:
        assert time.monotonic() < deadline, orphans
        time.sleep(0.05)
    by_id = {s["span_id"]: s for s in spans}
    engine = next(s for s in spans if s["name"] == "text_completion fake")
    assert engine["attributes"][names.PROVIDER] == "sglang"
    assert engine["attributes"][names.OUTPUT_TOKENS] == 400
    rounds = [e for e in engine["events"] if e["name"] == names.EVENT_ROUND]
    assert [e["attributes"][names.ROUND_OUTPUT_TOKENS] for e in rounds] == [192, 320]
    assert all(engine["start_ns"] <= e["time_ns"] <= engine["end_ns"] for e in rounds)
    lineage = []
    while engine is not None:
        lineage.append(engine["name"].split()[0])
        engine = by_id.get(engine["parent_id"])
    assert lineage[0] == "text_completion"
    assert lineage[-2:] == ["proxy_grpc_request", names.SPAN_CLIENT]
    handling = next(s for s in spans if s["name"].startswith("replica_handle_request Gateway"))
    assert handling["attributes"][names.TENANT_ID] == "acme"
    assert {names.SPAN_ROUTE, names.SPAN_ADMISSION} <= {
        s["name"] for s in spans if s["parent_id"] == handling["span_id"]
    }
    assert secret_prompt not in json.dumps(spans)
