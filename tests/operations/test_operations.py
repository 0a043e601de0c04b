"""What an operator relies on: who listens, what the front lets through, metrics, logs, traces, revocation."""

import json
import ssl
import time
import urllib.request
from urllib.error import HTTPError

import grpc
import httpx
import openai
import psutil
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.api.v1.generation_service_pb2_grpc import GenerationServiceStub
from reasonserve.cli import client
from reasonserve.gateway.listener import SERVICE
from reasonserve.replica.fake_engine import SECRET
from reasonserve.telemetry import names
from reasonserve.telemetry.sampling import ENTRANCES
from reasonserve.telemetry.tracing import TraceparentInterceptor, root_span

pytestmark = pytest.mark.timeout(400)


def bearer(key):
    return (("authorization", f"Bearer {key}"),)


def ask(prompt="zebra", *, max_new_tokens=8, method="r-kv", **kv):  # the model has no layer profile
    kv["method"] = method
    return pb.GenerateRequest(
        prompt=prompt, sampling=pb.SamplingOptions(max_new_tokens=max_new_tokens), kv=pb.KvOptions(**kv)
    )


def refusal(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def serving(operated, key):
    """Returns whether calls succeed, several in a row: replicas whose engine died have been replaced."""
    stub = operated.stub()
    return not any(stub.Generate.future(ask(), metadata=bearer(key)).exception() for _ in range(6))


def test_only_the_front_and_its_health_page_listen_to_the_network(operated):
    host = psutil.Process(operated.state.host.pid)
    listening = {
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for process in [host, *host.children(recursive=True)]
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {port for ip, port in listening if not ip.startswith("127.")} == {
        operated.ports["front"],
        operated.ports["health"],
    }
    assert {operated.ports[name] for name in ("gateway", "http", "controller")} <= {port for _, port in listening}


def test_the_front_takes_clients_with_a_certificate_alone(operated, key):
    answer = operated.stub(front=True).Generate(ask(), metadata=bearer(key))
    assert answer.usage.output_tokens == 8
    streamed = list(operated.stub(front=True).GenerateStream(ask(), metadata=bearer(key)))
    assert "".join(part.text for part in streamed) == answer.text
    without = refusal(
        lambda: operated.stub(front=True, certificate="").Generate(ask(), metadata=bearer(key), timeout=5)
    )
    assert without.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    no_key = refusal(lambda: operated.stub(front=True).Generate(ask()))
    assert no_key.code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_official_http_client_reaches_the_front_with_a_certificate_alone(operated, key):
    url = f"https://127.0.0.1:{operated.ports['front']}"
    context = ssl.create_default_context(cafile=operated.pki / "ca.crt")
    options = {"messages": [{"role": "user", "content": "zebra"}], "max_tokens": 8}
    options["extra_body"] = {"kv": {"method": "r-kv"}}
    with httpx.Client(verify=context) as http, pytest.raises(httpx.TransportError):
        http.get(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"})
    context.load_cert_chain(operated.pki / "client.crt", operated.pki / "client.key")
    with (
        httpx.Client(verify=context) as http,
        openai.OpenAI(base_url=f"{url}/v1", api_key=key, http_client=http) as made,
    ):
        (model,) = made.models.list().data
        whole = made.chat.completions.create(model=model.id, **options).choices[0].message.content
        parts = made.chat.completions.create(model=model.id, **options, stream=True)
        assert "".join(part.choices[0].delta.content or "" for part in parts) == whole
        assert http.get(f"{url}/-/routes").status_code == 404


def test_the_command_lines_client_reaches_the_front(operated, key, monkeypatch):
    for name, file in (("CA", "ca.crt"), ("CERT", "client.crt"), ("KEY", "client.key")):
        monkeypatch.setenv(f"REASONSERVE_TLS_{name}_FILE", str(operated.pki / file))
    with client.gateway(f"127.0.0.1:{operated.ports['front']}", key) as gateway:
        assert gateway.generate(ask()).usage.output_tokens == 8


def test_the_front_lets_nothing_else_through(operated):
    with operated.channel(front=True) as channel:
        listing = channel.unary_unary("/ray.serve.RayServeAPIService/ListApplications")
        assert refusal(lambda: listing(b"")).code() is grpc.StatusCode.UNIMPLEMENTED
    health = f"http://127.0.0.1:{operated.ports['health']}"
    with urllib.request.urlopen(f"{health}/healthz", timeout=10) as page:
        assert page.status == 200
    with pytest.raises(HTTPError, match="404"):
        urllib.request.urlopen(f"{health}/-/routes", timeout=10)


def test_messages_past_the_limits_are_refused_with_the_limit(operated, key):
    stub = operated.stub(front=True)
    long = refusal(lambda: stub.Generate(ask("z" * 70_000), metadata=bearer(key)))
    assert long.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "65536" in long.details()
    huge = refusal(lambda: stub.Generate(ask("z" * (17 << 20)), metadata=bearer(key)))
    assert huge.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT)
    stops = pb.GenerateRequest(prompt="z", sampling=pb.SamplingOptions(stop=["s"] * 1000))
    assert refusal(lambda: stub.Generate(stops, metadata=bearer(key))).code() is grpc.StatusCode.INVALID_ARGUMENT


def tells_nothing(operated, error):
    """Returns whether a refusal says nothing of where anything is."""
    told = error.details() + repr(error.trailing_metadata())
    private = (SECRET, "Traceback", ".py", "127.0.0.1", str(operated.folder), "pid=")
    return not any(word in told for word in private)


def test_an_unforeseen_error_tells_nothing_of_where(operated, key):
    error = refusal(lambda: operated.stub(front=True).Generate(ask("!raise"), metadata=bearer(key)))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert tells_nothing(operated, error)


def test_a_revoked_key_is_refused_within_five_seconds(operated, key):
    second, key_id = operated.new_key("team-a")
    stub = operated.stub()
    stub.Generate(ask(), metadata=bearer(second))
    operated.admin("RevokeTenantKey", tenant_pb.RevokeTenantKeyRequest(tenant_id="team-a", key_id=key_id))
    revoked_at = asked_at = time.monotonic()
    error = None
    while error is None:
        assert asked_at - revoked_at < 5.0
        time.sleep(0.1)
        asked_at = time.monotonic()
        error = stub.Generate.future(ask(), metadata=bearer(second)).exception()
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    stub.Generate(ask(), metadata=bearer(key))  # the other key goes on


def sample(page, name, **labels):
    return sum(
        s.value for family in page.values() for s in family if s.name == name and labels.items() <= s.labels.items()
    )


def test_rays_page_counts_what_was_done(operated, key, wait_until):
    def read(name, **labels):
        return sample(operated.page("ray_metrics"), f"ray_reasonserve_{name}", **labels)

    before = read("output_tokens_total", tenant="team-a")
    operated.stub().Generate(ask(max_new_tokens=400, budget_tokens=64), metadata=bearer(key))
    refusal(lambda: operated.stub().Generate(ask(max_new_tokens=5000, method="full"), metadata=bearer(key)))
    wait_until(lambda: read("output_tokens_total", tenant="team-a") >= before + 400)
    wait_until(lambda: read("requests_total", tenant="team-a", outcome="invalid_argument") >= 1)
    wait_until(lambda: read("rounds_total", tenant="team-a", method="r-kv") >= 2)
    assert read("evicted_cells_total", tenant="team-a") > 0
    assert read("admissions_total", tenant="team-a", result="admitted") >= 1
    assert read("time_to_first_token_seconds_count", tenant="team-a") >= 1
    assert read("key_checks_total", result="hit") >= 1
    assert read("lease_epoch") > 0


def test_the_controllers_page_shows_its_ledger(operated, key):
    page = operated.page("controller_metrics")
    assert sample(page, "reasonserve_controller_leads") == 1
    assert sample(page, "reasonserve_cluster_replicas") == 2
    assert sample(page, "reasonserve_tenant_limit_slots", tenant="team-a") == 1024
    assert 0 < sample(page, "reasonserve_tenant_leased_slots", tenant="team-a") <= 1024
    assert sample(page, "reasonserve_controller_writes_total", result="ok") >= 3
    assert sample(page, "reasonserve_controller_splits_total") >= 1


def test_each_request_is_one_log_line_without_key_or_prompt(operated, key, wait_until):
    answer = operated.stub().Generate(ask("secretprompt"), metadata=bearer(key))

    def lines():
        return [line for line in operated.log_lines() if line.get("request_id") == answer.request_id]

    wait_until(lines)
    (line,) = lines()
    assert {name: line[name] for name in ("service", "tenant", "outcome", "output_tokens", "method")} == {
        "service": "gateway",
        "tenant": "team-a",
        "outcome": "ok",
        "output_tokens": 8,
        "method": "r-kv",
    }
    assert len(line["trace_id"]) == 32
    assert {"gateway", "controller"} <= {each["service"] for each in operated.log_lines()}
    whole = json.dumps(operated.log_lines())
    assert not any(word in whole for word in (key, "secretprompt", "zebra", SECRET))


def unary(stub, metadata):
    stub.Generate(ask(max_new_tokens=400, budget_tokens=64), metadata=metadata)


def stream(stub, metadata):
    list(stub.GenerateStream(ask(max_new_tokens=400, budget_tokens=64), metadata=metadata))


def cancelled(stub, metadata):
    call = stub.GenerateStream(ask("!slow", max_new_tokens=4000, budget_tokens=64), metadata=metadata)
    next(call)
    call.cancel()


def refused(stub, metadata):
    refusal(lambda: stub.Generate(ask(max_new_tokens=5000, method="full"), metadata=metadata))


def unauthenticated(stub, metadata):
    refusal(lambda: stub.Generate(ask(), metadata=(*metadata[1:], ("authorization", "Bearer wrong"))))


def retried(stub, metadata):
    error = refusal(lambda: stub.Generate(ask("!die"), metadata=metadata))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert not any(word in error.details() for word in ("Traceback", ".py", "127.0.0.1", "pid="))


def call_traced(operated, key, how, *, sampled):
    """Makes a call under a client's span; returns the trace's id."""
    exporter = OTLPSpanExporter(endpoint=operated.otlp_endpoint)
    provider = TracerProvider(sampler=ALWAYS_ON if sampled else ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with root_span(provider) as span, operated.channel() as channel:
        stub = GenerationServiceStub(grpc.intercept_channel(channel, TraceparentInterceptor()))
        how(stub, bearer(key))
    provider.shutdown()
    return span.get_span_context().trace_id


@pytest.mark.parametrize("how", [unary, stream, cancelled, refused, unauthenticated, retried])
def test_a_call_is_one_trace_with_one_root_and_no_orphan(operated, key, wait_until, how):
    trace_id = call_traced(operated, key, how, sampled=True)

    entrance = f"{SERVICE}/{'GenerateStream' if how in (stream, cancelled) else 'Generate'}"
    wanted = {entrance, names.SPAN_AUTHENTICATE if how is unauthenticated else names.SPAN_ADMISSION}
    if how in (unary, stream, cancelled):
        phases = {names.SPAN_ENGINE_QUEUE, names.SPAN_ENGINE_PREFILL, names.SPAN_ENGINE_DECODE}
        wanted |= {"text_completion"} | phases
    ways = [] if how is unauthenticated else [names.SPAN_ADMISSION, names.SPAN_ROUTE]
    tries = [(name, number) for name in ways for number in range(2 if how is retried else 1)]

    def complete():
        spans = operated.collector.trace(trace_id)
        seen = {span.name.split()[0] for span in spans}
        if operated.collector.parents(trace_id) == ([names.SPAN_CLIENT], []) and wanted <= seen:
            return spans if len(operated.collector.attempts(trace_id)) >= len(tries) else None

    spans = wait_until(complete)
    assert len({span.span_id for span in spans}) == len(spans)
    told = {a.value.string_value for s in spans if s.name == entrance for a in s.attributes if a.key == names.TENANT_ID}
    assert len(told) == (how is not unauthenticated)
    if how in (unary, stream):
        engine = next(span for span in spans if span.name.startswith("text_completion"))
        assert [event.name for event in engine.events].count(names.EVENT_ROUND) == 2
    assert not any(word in str(spans) for word in ("zebra", SECRET, key))
    assert operated.collector.attempts(trace_id) == tries
    if how is retried:
        wait_until(lambda: serving(operated, key))


def test_a_caller_who_samples_nothing_gets_nothing(operated, key, wait_until):
    every = (unary, stream, cancelled, refused, unauthenticated, retried)
    unsampled = [call_traced(operated, key, how, sampled=False) for how in every]
    wait_until(lambda: serving(operated, key))
    sampled = call_traced(operated, key, unary, sampled=True)
    wait_until(lambda: operated.collector.parents(sampled) == ([names.SPAN_CLIENT], []))
    assert [operated.collector.trace(trace_id) for trace_id in unsampled] == [[]] * len(unsampled)
    # Nor did a part of one begin a trace of its own.
    begun = {span.name for span in operated.collector.spans if not span.parent_span_id}
    assert all(name.startswith((names.SPAN_CLIENT, *ENTRANCES)) for name in begun), begun
