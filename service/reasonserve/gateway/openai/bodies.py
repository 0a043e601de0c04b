"""The JSON bodies of the OpenAI-compatible API, closed: what would be ignored is refused.

Types are held here, ranges where every request passes (``gateway.sampling``). Fields after the blank line of a
class are SGLang's and ours; the official client sends them by ``extra_body``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Closed(BaseModel):
    """A body without unknown fields, whose values are not coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, serialize_by_alias=True)


class TextPart(Closed):
    """A part of a message; text is the only kind."""

    type: Literal["text"]
    text: str


class Message(Closed):
    """One message of a conversation."""

    role: str
    content: str | list[TextPart]
    name: str | None = None

    reasoning_content: str | None = None
    """Accepted so that answers can be sent back as history; templates leave old reasoning out."""

    refusal: None = None
    annotations: list[Any] | None = None
    audio: None = None
    tool_calls: None = None
    function_call: None = None


class JsonSchema(Closed):
    """A named schema."""

    schema_: dict[str, JsonValue] = Field(alias="schema")
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Closed):
    """What the answer must look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Closed):
    """What a stream carries besides text."""

    include_usage: bool | None = None


class Kv(Closed):
    """How much KV memory each output may hold."""

    budget_tokens: Int32 | None = None
    method: str | None = None
    prompt_mode: Literal["pinned", "evictable"] | None = None


class Body(Closed):
    """What both kinds of completion take."""

    model: str
    frequency_penalty: Number | None = None
    logit_bias: dict[str, Number] | None = None
    max_tokens: Int32 | None = None
    n: Int32 | None = None
    presence_penalty: Number | None = None
    seed: Int64 | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    user: str | None = None

    top_k: Int32 | None = None
    min_p: Number | None = None
    repetition_penalty: Number | None = None
    min_tokens: Int32 | None = None
    stop_token_ids: list[Int32] | None = None
    ignore_eos: bool | None = None
    json_schema: str | None = None
    regex: str | None = None
    ebnf: str | None = None
    kv: Kv | None = None


class ChatBody(Body):
    """Body of ``/v1/chat/completions``."""

    messages: list[Message]
    logprobs: bool | None = None
    top_logprobs: Int32 | None = None
    max_completion_tokens: Int32 | None = None
    response_format: ResponseFormat | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None

    chat_template_kwargs: dict[str, JsonValue] | None = None
    separate_reasoning: bool | None = None


class CompletionBody(Body):
    """Body of ``/v1/completions``."""

    prompt: str | list[Int32] | list[str]
    logprobs: Int32 | None = None
    echo: Literal[False] | None = None
    best_of: None = None
    suffix: None = None
