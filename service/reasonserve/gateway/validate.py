"""From the wire to a typed call: every field is held against what the contract allows. Pure."""

from __future__ import annotations

from reprlib import repr as short_repr

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.errors import InvalidRequestError
from reasonserve.kv import MIN_BUDGET_TOKENS, PromptModeName, check_prompt_mode, triple_of
from reasonserve.replica.messages import ChatInput, GenerateCall, PromptInput, TokensInput
from reasonserve.replica.protocol import Sampling
from reasonserve.replica.sizing import KvAsk

ROLES = ("system", "user", "assistant")
MAX_STOP_STRINGS = 16
MAX_TEMPERATURE = 2.0

_DEFAULTS = Sampling()
_PROMPT_MODES: dict[int, PromptModeName] = {
    pb.PROMPT_MODE_UNSPECIFIED: "pinned",
    pb.PROMPT_MODE_PINNED: "pinned",
    pb.PROMPT_MODE_EVICTABLE: "evictable",
}


def parse_request(
    request: pb.GenerateRequest, *, model: str, request_id: str, tenant_id: str, max_input_bytes: int
) -> GenerateCall:
    """Returns the call that a request asks for, with defaults filled in.

    Args:
        request: As it came.
        model: Name of the served model.
        request_id: Given to the call.
        tenant_id: Who is calling.
        max_input_bytes: Largest request message.

    Raises:
        InvalidRequestError: Names the field, what was given and what is allowed.
    """
    size = request.ByteSize()
    if size > max_input_bytes:
        raise InvalidRequestError(
            f"The request has {size} bytes; at most {max_input_bytes} are taken. Shorten the input.", field="input"
        )
    if request.model not in ("", model):
        raise _fault(
            "model", short_repr(request.model), f"this cluster serves {model!r}; name it or leave the field empty"
        )
    return GenerateCall(
        request_id=request_id,
        tenant_id=tenant_id,
        input=_input(request),
        sampling=_sampling(request.sampling),
        kv=_kv(request.kv),
    )


def _input(request: pb.GenerateRequest) -> PromptInput | ChatInput | TokensInput:
    kind = request.WhichOneof("input")
    if kind == "prompt":
        if not request.prompt:
            raise _fault("prompt", "empty", "send at least one character")
        return PromptInput(text=request.prompt)
    if kind == "chat":
        return _chat(request.chat)
    if kind == "tokens":
        return _tokens(request.tokens)
    raise InvalidRequestError("The request has no input; set exactly one of prompt, chat and tokens.", field="input")


def _chat(chat: pb.ChatInput) -> ChatInput:
    if not chat.messages:
        raise _fault("chat.messages", "empty", "send at least one message")
    for index, message in enumerate(chat.messages):
        if message.role not in ROLES:
            raise _fault(f"chat.messages[{index}].role", short_repr(message.role), f"use one of {', '.join(ROLES)}")
    return ChatInput(messages=tuple((message.role, message.content) for message in chat.messages))


def _tokens(tokens: pb.TokenInput) -> TokensInput:
    if not tokens.ids:
        raise _fault("tokens.ids", "empty", "send at least one token id")
    return TokensInput(ids=tuple(tokens.ids))


def _sampling(options: pb.SamplingOptions) -> Sampling:
    given = {field.name for field, _ in options.ListFields()}
    # `not (low <= x <= high)` refuses NaN as well.
    if "temperature" in given and not 0 <= options.temperature <= MAX_TEMPERATURE:
        raise _fault("sampling.temperature", options.temperature, "use a number in [0, 2]")
    if "top_p" in given and not 0 < options.top_p <= 1:
        raise _fault("sampling.top_p", options.top_p, "use a number in (0, 1]")
    if "top_k" in given and options.top_k < 1:
        raise _fault("sampling.top_k", options.top_k, "use at least 1, or leave it unset for no limit")
    if "max_new_tokens" in given and options.max_new_tokens < 1:
        raise _fault("sampling.max_new_tokens", options.max_new_tokens, "use at least 1")
    if len(options.stop) > MAX_STOP_STRINGS:
        raise _fault("sampling.stop", f"{len(options.stop)} strings", f"use at most {MAX_STOP_STRINGS}")
    if "" in options.stop:
        raise _fault(f"sampling.stop[{list(options.stop).index('')}]", "empty", "use at least one character")
    return Sampling(
        temperature=options.temperature if "temperature" in given else _DEFAULTS.temperature,
        top_p=options.top_p if "top_p" in given else _DEFAULTS.top_p,
        top_k=options.top_k if "top_k" in given else _DEFAULTS.top_k,
        max_new_tokens=options.max_new_tokens if "max_new_tokens" in given else _DEFAULTS.max_new_tokens,
        stop=tuple(options.stop),
        seed=options.seed if "seed" in given else None,
        ignore_eos=options.ignore_eos,
    )


def _kv(options: pb.KvOptions) -> KvAsk:
    method = options.method or "reasonalloc"
    try:
        triple_of(method)
    except ValueError as error:
        raise InvalidRequestError(str(error), field="kv.method") from None
    prompt_mode = _PROMPT_MODES.get(options.prompt_mode)
    if prompt_mode is None:
        raise _fault("kv.prompt_mode", options.prompt_mode, "use PROMPT_MODE_PINNED or PROMPT_MODE_EVICTABLE")
    try:
        check_prompt_mode(method, prompt_mode)
    except ValueError as error:
        raise InvalidRequestError(str(error), field="kv.prompt_mode") from None
    budget = options.budget_tokens if options.HasField("budget_tokens") else None
    if method == "full" and budget is not None:
        raise _fault("kv.budget_tokens", budget, "the method full has no budget; leave it unset or use another method")
    if method == "full" and prompt_mode == "evictable":
        raise _fault("kv.prompt_mode", "PROMPT_MODE_EVICTABLE", "the method full evicts nothing; use another method")
    if budget is not None and budget < MIN_BUDGET_TOKENS:
        raise _fault("kv.budget_tokens", budget, f"use at least {MIN_BUDGET_TOKENS}")
    return KvAsk(method=method, budget_tokens=budget, prompt_mode=prompt_mode)


def _fault(field: str, given: object, remedy: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field} is {given}; {remedy}.", field=field)
