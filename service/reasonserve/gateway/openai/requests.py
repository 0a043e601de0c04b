"""From the OpenAI-compatible API's JSON to the request of the contract. Pure."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from pydantic import ValidationError

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.errors import InvalidRequestError
from reasonserve.gateway.openai.bodies import Body, ChatBody, CompletionBody, Kv, Message

CHAT_MAX_TOKENS = 2**31 - 1
"""Of a chat that names no limit: the context ends it."""
COMPLETION_MAX_TOKENS = 16
"""Of a completion that names no limit, as OpenAI's."""

_ROLES = {"developer": "system"}
_PROMPT_MODES = {
    None: pb.PROMPT_MODE_UNSPECIFIED,
    "pinned": pb.PROMPT_MODE_PINNED,
    "evictable": pb.PROMPT_MODE_EVICTABLE,
}
_SAME = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "ignore_eos",
    "json_schema",
    "regex",
    "ebnf",
)
"""Fields that have the same name in ``SamplingOptions``."""

_RENAMED = {
    "sampling.max_new_tokens": "max_tokens",
    "sampling.min_new_tokens": "min_tokens",
    "sampling.num_outputs": "n",
    "sampling.json_schema": "response_format",
    "tokens.ids": "prompt",
    "chat.messages": "messages",
    "chat.template_variables": "chat_template_kwargs",
    "input": "messages",
}
_TYPES = ("str", "int", "float", "bool")
_ANY_OBJECT = '{"type": "object"}'

Parsed = TypeVar("Parsed", bound=Body)


def parse_body(kind: type[Parsed], data: bytes) -> Parsed:
    """Returns a typed body.

    Raises:
        InvalidRequestError: It is no JSON, or a field is unknown, missing or of the wrong type.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = _path(first["loc"])
        if first["type"] == "extra_forbidden":
            message = f"{field} is not a field of this API, or not one that this service honours; leave it out."
        elif first["type"] == "json_invalid":
            message = f"The body is no JSON ({first['msg']}); send one JSON object."
        else:
            message = f"{field or 'The body'} cannot be read: {first['msg']}."
        raise InvalidRequestError(message, field=field) from None


def chat_request(body: ChatBody) -> pb.GenerateRequest:
    """Returns what a chat completion asks for.

    Raises:
        InvalidRequestError: Fields contradict each other.
    """
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise InvalidRequestError(
            "max_tokens and max_completion_tokens are both given; send max_completion_tokens alone.",
            field="max_tokens",
        )
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequestError("top_logprobs is given without logprobs; set logprobs to true.", field="logprobs")
    longest = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    sampling = _sampling(body, longest, CHAT_MAX_TOKENS)
    if body.logprobs:
        sampling.top_logprobs = body.top_logprobs or 0
    _add_response_format(body, sampling)
    variables = None
    if body.chat_template_kwargs:
        variables = ParseDict(body.chat_template_kwargs, Struct())
    chat = pb.ChatInput(messages=[_message(message) for message in body.messages], template_variables=variables)
    return pb.GenerateRequest(
        model=body.model, chat=chat, sampling=sampling, kv=_kv(body.kv), separate_reasoning=body.separate_reasoning
    )


def completion_request(body: CompletionBody) -> pb.GenerateRequest:
    """Returns what a completion asks for.

    Raises:
        InvalidRequestError: There are several prompts.
    """
    sampling = _sampling(body, body.max_tokens, COMPLETION_MAX_TOKENS)
    if body.logprobs is not None:
        sampling.top_logprobs = body.logprobs
    common: dict[str, Any] = {"model": body.model, "sampling": sampling, "kv": _kv(body.kv)}
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    if prompts and not isinstance(prompts[0], str):
        return pb.GenerateRequest(tokens=pb.TokenInput(ids=[i for i in prompts if isinstance(i, int)]), **common)
    if len(prompts) != 1:
        raise InvalidRequestError(f"prompt has {len(prompts)} texts; send one a request.", field="prompt")
    return pb.GenerateRequest(prompt=str(prompts[0]), **common)


def param_of(field: str) -> str:
    """Returns what this API calls a field of the contract."""
    base, bracket, rest = field.partition("[")
    return _RENAMED.get(base, base.removeprefix("sampling.")) + bracket + rest


def _sampling(body: Body, longest: int | None, default: int) -> pb.SamplingOptions:
    given = {name: getattr(body, name) for name in _SAME}
    grammars = [name for name in ("json_schema", "regex", "ebnf") if given[name] is not None]
    if len(grammars) > 1:
        raise InvalidRequestError(f"{' and '.join(grammars)} are both given; send one of them.", field=grammars[1])
    options = pb.SamplingOptions(
        **{name: value for name, value in given.items() if value is not None},
        max_new_tokens=default if longest is None else longest,
        num_outputs=body.n,
        min_new_tokens=body.min_tokens,
        stop=[body.stop] if isinstance(body.stop, str) else body.stop,
        stop_token_ids=body.stop_token_ids,
    )
    for token, bias in (body.logit_bias or {}).items():
        if not (token.isascii() and token.isdecimal() and int(token) < 2**31):
            raise InvalidRequestError(
                "logit_bias has a key that is no token id; use whole numbers.", field="logit_bias"
            )
        options.logit_bias[int(token)] = bias
    return options


def _add_response_format(body: ChatBody, sampling: pb.SamplingOptions) -> None:
    asked = body.response_format
    if asked is None or asked.type == "text":
        return
    if sampling.WhichOneof("grammar"):
        raise InvalidRequestError(
            "response_format is given beside another grammar; send one of them.", field="response_format"
        )
    if asked.type == "json_object":
        sampling.json_schema = _ANY_OBJECT
        return
    if asked.json_schema is None:
        raise InvalidRequestError("response_format has no json_schema; send it.", field="response_format.json_schema")
    sampling.json_schema = json.dumps(asked.json_schema.schema_)


def _message(message: Message) -> pb.ChatMessage:
    content = message.content
    text = content if isinstance(content, str) else "".join(part.text for part in content)
    return pb.ChatMessage(role=_ROLES.get(message.role, message.role), content=text)


def _kv(kv: Kv | None) -> pb.KvOptions | None:
    if kv is None:
        return None
    return pb.KvOptions(
        budget_tokens=kv.budget_tokens, method=kv.method or "", prompt_mode=_PROMPT_MODES[kv.prompt_mode]
    )


def _path(location: tuple[int | str, ...]) -> str:
    """Returns a field's path, without the names of the types that pydantic tried there."""
    parts = [part for part in location if isinstance(part, int) or (part.isidentifier() and part not in _TYPES)]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
