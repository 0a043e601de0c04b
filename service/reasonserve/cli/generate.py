"""``generate``: one prompt through the gateway."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer
from google.protobuf.json_format import Parse, ParseError

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.cli import client, options, tracing
from reasonserve.cli.output import err, out, print_json
from reasonserve.kv import METHODS, triple_of
from reasonserve.telemetry.tracing import root_span, trace_id_of


class PromptMode(StrEnum):
    """What happens to the prompt."""

    PINNED = "pinned"
    EVICTABLE = "evictable"

    @property
    def message(self) -> pb.PromptMode:
        """The protocol's value."""
        return pb.PROMPT_MODE_PINNED if self is PromptMode.PINNED else pb.PROMPT_MODE_EVICTABLE


def _known_method(name: str) -> str:
    try:
        triple_of(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return name


def _known_options(text: str) -> str:
    try:
        Parse(text, pb.SamplingOptions())
    except ParseError as error:
        raise typer.BadParameter(f"{error} Give a JSON object of sampling options.") from None
    return text


Prompt = Annotated[str, typer.Argument(help="The prompt; - reads it from standard input.")]
Chat = Annotated[bool, typer.Option("--chat/--raw", help="Use the model's chat template, or not.")]
Budget = Annotated[
    int | None, typer.Option("--budget", help="KV budget, tokens per layer and kv head. Default: the tenant's.")
]
MethodOption = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="NAME",
        callback=_known_method,
        autocompletion=lambda: METHODS,
        help=f"How the budget is spent: {', '.join(METHODS)}; or any LAYER/HEAD/SCORER.",
    ),
]
ModeOption = Annotated[PromptMode, typer.Option("--prompt-mode", help="Keep the prompt whole, or let it compete.")]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", "-n", help="Most tokens to generate.")]
Temperature = Annotated[float, typer.Option("--temperature", "-t", help="0 is greedy.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Makes the sampling reproducible.")]
IgnoreEos = Annotated[bool, typer.Option("--ignore-eos", help="Go on past the end of the answer.")]
More = Annotated[
    str,
    typer.Option(
        "--sampling",
        metavar="JSON",
        callback=_known_options,
        help="""Any other sampling option by its name in the API: '{"top_p": 0.9, "regex": "yes|no"}'.""",
    ),
]
Stream = Annotated[bool, typer.Option("--stream/--no-stream", help="Print text as it comes.")]
Trace = Annotated[bool, typer.Option("--trace", help="Print the request's trace afterwards.")]


def generate(
    prompt: Prompt,
    chat: Chat = True,
    budget: Budget = None,
    method: MethodOption = "reasonalloc",
    prompt_mode: ModeOption = PromptMode.PINNED,
    max_new_tokens: MaxNewTokens = 256,
    temperature: Temperature = 0.6,
    seed: Seed = None,
    ignore_eos: IgnoreEos = False,
    more: More = "{}",
    stream: Stream = True,
    trace: Trace = False,
    as_json: options.AsJson = False,
    endpoint: options.Endpoint = None,
    api_key: options.ApiKey = None,
    state_dir: options.StateDir = None,
) -> None:
    """Generate text with a bounded KV cache; prints the text, then what the cache did."""
    request = build_request(
        sys.stdin.read() if prompt == "-" else prompt,
        chat=chat,
        budget=budget,
        method=method,
        prompt_mode=prompt_mode.message,
        sampling=Parse(more, sampling(max_new_tokens, temperature, seed, ignore_eos)),
    )
    spans = tracing.trace_file(state_dir)
    with (
        tracing.traced(spans) as provider,
        client.gateway(client.gateway_endpoint(endpoint, state_dir), api_key) as gateway,
        root_span(provider) as span,
    ):
        response = _receive(gateway, request, stream=stream, echo=not as_json)
    _report(response, trace_id_of(span), as_json=as_json)
    if trace:
        out.print(tracing.tree_of(spans, trace_id_of(span)))


def _report(response: pb.GenerateResponse, trace_id: str, *, as_json: bool) -> None:
    if as_json:
        print_json(response)
        return
    figures = f"\n{summary(response)}\nRequest {response.request_id}, trace {trace_id}"
    err.print(figures, style="dim", soft_wrap=True)


def sampling(max_new_tokens: int, temperature: float, seed: int | None, ignore_eos: bool) -> pb.SamplingOptions:
    """Returns sampling options."""
    return pb.SamplingOptions(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, ignore_eos=ignore_eos)


def build_request(
    prompt: str,
    *,
    chat: bool,
    budget: int | None,
    method: str,
    prompt_mode: pb.PromptMode,
    sampling: pb.SamplingOptions,
) -> pb.GenerateRequest:
    """Returns a request for one prompt."""
    turn = pb.ChatInput(messages=[pb.ChatMessage(role="user", content=prompt)])
    given: dict[str, Any] = {"chat": turn} if chat else {"prompt": prompt}
    kv = pb.KvOptions(budget_tokens=budget, method=method, prompt_mode=prompt_mode)
    return pb.GenerateRequest(**given, sampling=sampling, kv=kv)


def _receive(gateway: client.Gateway, request: pb.GenerateRequest, *, stream: bool, echo: bool) -> pb.GenerateResponse:
    """Returns the whole answer, whichever way it comes; prints its text on the way."""
    if not stream:
        whole = gateway.generate(request)
        if echo:
            _write(whole)
        return whole
    joined = pb.GenerateResponse()
    for part in gateway.stream(request):
        if echo:
            _write(part)
        text, reasoning = joined.text + part.text, joined.reasoning + part.reasoning
        joined.MergeFrom(part)  # Concatenates token_ids and takes the newest of everything else.
        joined.text, joined.reasoning = text, reasoning
    return joined


def _write(part: pb.GenerateResponse) -> None:
    """Prints model output as it is, without markup, at once; reasoning goes beside it, to the error stream."""
    if part.reasoning:
        err.print(part.reasoning, style="dim", end="", markup=False, highlight=False, soft_wrap=True)
    sys.stdout.write(part.text)
    sys.stdout.flush()


def summary(response: pb.GenerateResponse) -> str:
    """Returns one line of what a finished request used."""
    usage, kv = response.usage, response.kv
    line = f"{usage.input_tokens} tokens in ({usage.cached_tokens} cached), {usage.output_tokens} out"
    bounded = f"budget {kv.budget_tokens}, {kv.rounds} rounds, {kv.kept_cells} cells kept, {kv.evicted_cells} evicted"
    return f"{line}; method {kv.method}, peak {kv.peak_slots} slots" + (f", {bounded}" if kv.budget_tokens else "")
