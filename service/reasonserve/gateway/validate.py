"""From the wire to a typed call: every field is held against what the contract allows. Pure."""

from __future__ import annotations

from reprlib import repr as short_repr
from typing import Any

from google.protobuf.json_format import MessageToDict

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.errors import InvalidRequestError
from reasonserve.gateway.sampling import fault, num_outputs, parse_sampling
from reasonserve.kv import MIN_BUDGET_TOKENS, PromptModeName, check_prompt_mode, triple_of
from reasonserve.replica.messages import ChatInput, GenerateCall, Input, PromptInput, TokensInput
from reasonserve.replica.sizing import KvAsk

ROLES = ("system", "user", "assistant")

_PROMPT_MODES: dict[int, PromptModeName] = {
    pb.PROMPT_MODE_UNSPECIFIED: "pinned",
    pb.PROMPT_MODE_PINNED: "pinned",
    pb.PROMPT_MODE_EVICTABLE: "evictable",
}


def parse_request(
    request: pb.GenerateRequest,
    *,
    model: str,
    request_id: str,
    tenant_id: str,
    max_input_bytes: int,
    patience_s: float | None = None,
) -> GenerateCall:
    """Returns the call that a request asks for, with defaults filled in.

    Args:
        request: As it came.
        model: Name of the served model.
        request_id: Given to the call.
        tenant_id: Who is calling.
        max_input_bytes: Largest request message.
        patience_s: How long the client waits from now.

    Raises:
        InvalidRequestError: Names the field, what was given and what is allowed.
    """
    check_envelope(request, model=model, max_input_bytes=max_input_bytes)
    return GenerateCall(
        request_id=request_id,
        tenant_id=tenant_id,
        input=parse_input(request),
        sampling=parse_sampling(request.sampling),
        kv=_kv(request.kv),
        patience_s=patience_s,
        num_outputs=num_outputs(request.sampling),
        separate_reasoning=request.separate_reasoning if request.HasField("separate_reasoning") else True,
    )


def check_envelope(request: pb.GenerateRequest | pb.CountTokensRequest, *, model: str, max_input_bytes: int) -> None:
    """Returns if a message has an acceptable size and names the served model.

    Raises:
        InvalidRequestError: It has not.
    """
    size = request.ByteSize()
    if size > max_input_bytes:
        raise InvalidRequestError(
            f"The request has {size} bytes; at most {max_input_bytes} are taken. Shorten the input.", field="input"
        )
    if request.model not in ("", model):
        raise fault(
            "model", short_repr(request.model), f"this cluster serves {model!r}; name it or leave the field empty"
        )


def parse_input(request: pb.GenerateRequest | pb.CountTokensRequest) -> Input:
    """Returns a message's input.

    Raises:
        InvalidRequestError: There is none, or it is empty.
    """
    kind = request.WhichOneof("input")
    if kind == "prompt":
        if not request.prompt:
            raise fault("prompt", "empty", "send at least one character")
        return PromptInput(text=request.prompt)
    if kind == "chat":
        return _chat(request.chat)
    if kind == "tokens":
        return _tokens(request.tokens)
    raise InvalidRequestError("The request has no input; set exactly one of prompt, chat and tokens.", field="input")


def _chat(chat: pb.ChatInput) -> ChatInput:
    if not chat.messages:
        raise fault("chat.messages", "empty", "send at least one message")
    for index, message in enumerate(chat.messages):
        if message.role not in ROLES:
            raise fault(f"chat.messages[{index}].role", short_repr(message.role), f"use one of {', '.join(ROLES)}")
    return ChatInput(
        messages=tuple((message.role, message.content) for message in chat.messages),
        variables={name: _plain(value) for name, value in MessageToDict(chat.template_variables).items()},
    )


def _plain(value: Any) -> Any:
    """Returns a template variable with whole numbers as such; protobuf's are all floating-point."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _tokens(tokens: pb.TokenInput) -> TokensInput:
    if not tokens.ids:
        raise fault("tokens.ids", "empty", "send at least one token id")
    return TokensInput(ids=tuple(tokens.ids))


def _kv(options: pb.KvOptions) -> KvAsk:
    method = options.method or "reasonalloc"
    try:
        triple_of(method)
    except ValueError as error:
        raise InvalidRequestError(str(error), field="kv.method") from None
    prompt_mode = _PROMPT_MODES.get(options.prompt_mode)
    if prompt_mode is None:
        raise fault("kv.prompt_mode", options.prompt_mode, "use PROMPT_MODE_PINNED or PROMPT_MODE_EVICTABLE")
    try:
        check_prompt_mode(method, prompt_mode)
    except ValueError as error:
        raise InvalidRequestError(str(error), field="kv.prompt_mode") from None
    budget = options.budget_tokens if options.HasField("budget_tokens") else None
    if method == "full" and budget is not None:
        raise fault("kv.budget_tokens", budget, "the method full has no budget; leave it unset or use another method")
    if method == "full" and prompt_mode == "evictable":
        raise fault("kv.prompt_mode", "PROMPT_MODE_EVICTABLE", "the method full evicts nothing; use another method")
    if budget is not None and budget < MIN_BUDGET_TOKENS:
        raise fault("kv.budget_tokens", budget, f"use at least {MIN_BUDGET_TOKENS}")
    return KvAsk(method=method, budget_tokens=budget, prompt_mode=prompt_mode)
