"""Every span, attribute and event of ReasonServe, as data.

Generative-AI names follow the OpenTelemetry GenAI conventions as they stand today (status: development);
the rest is under ``reasonserve.``. Prompts and answers are recorded only where `telemetry.record_content` asks for it.
"""

from __future__ import annotations

from typing import Final

TRACER: Final = "reasonserve"

# Spans. The engine's span is named by `inference_span_name`.
SPAN_CLIENT: Final = "reasonserve.client"
SPAN_AUTHENTICATE: Final = "reasonserve.authenticate"
SPAN_ROUTE: Final = "reasonserve.route"
SPAN_ADMISSION: Final = "reasonserve.admission"
# Below the engine's span, in this order.
SPAN_ENGINE_QUEUE: Final = "reasonserve.engine.queue"
SPAN_ENGINE_PREFILL: Final = "reasonserve.engine.prefill"
SPAN_ENGINE_DECODE: Final = "reasonserve.engine.decode"

# Attributes of the GenAI conventions.
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_TOP_K: Final = "gen_ai.request.top_k"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
REQUEST_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
ERROR_TYPE: Final = "error.type"

PROVIDER_NAME: Final = "sglang"
OPERATION_CHAT: Final = "chat"
OPERATION_COMPLETION: Final = "text_completion"

# Attributes of the RPC conventions.
RPC_SYSTEM: Final = "rpc.system"
RPC_SERVICE: Final = "rpc.service"
RPC_METHOD: Final = "rpc.method"
RPC_STATUS: Final = "rpc.grpc.status_code"

# Own attributes.
REQUEST_ID: Final = "reasonserve.request.id"
ATTEMPT: Final = "reasonserve.request.attempt"
TENANT_ID: Final = "reasonserve.tenant.id"
REPLICA_ID: Final = "reasonserve.replica.id"
KV_METHOD: Final = "reasonserve.kv.method"
KV_BUDGET_TOKENS: Final = "reasonserve.kv.budget_tokens"
KV_PROMPT_MODE: Final = "reasonserve.kv.prompt_mode"
KV_PROFILE: Final = "reasonserve.kv.profile"
KV_RESERVED_SLOTS: Final = "reasonserve.kv.reserved_slots"
KV_WISHED_TOKENS: Final = "reasonserve.kv.wished_tokens"
QUEUED_S: Final = "reasonserve.admission.queued_s"
KV_PEAK_SLOTS: Final = "reasonserve.kv.peak_slots"
KV_ROUNDS: Final = "reasonserve.kv.rounds"
KV_SQUEEZES: Final = "reasonserve.kv.squeezes"
RETRY_AFTER_S: Final = "reasonserve.retry_after_s"

# Events of admission: how the request came to its slots, and what was taken from it while it ran.
EVENT_QUEUED: Final = "reasonserve.admission.queued"
EVENT_SHRUNK: Final = "reasonserve.admission.shrunk"
EVENT_SQUEEZED: Final = "reasonserve.kv.squeezed"
KV_HELD_SLOTS: Final = "reasonserve.kv.held_slots"

# The event of a second try, on the gateway's span.
EVENT_RETRY: Final = "reasonserve.retry"

# The event of one compression round, on the engine's span, at the time it ran.
EVENT_ROUND: Final = "reasonserve.kv.round"
ROUND_OUTPUT_TOKENS: Final = "reasonserve.kv.round.output_tokens"
ROUND_KEPT_CELLS: Final = "reasonserve.kv.round.kept_cells"
ROUND_EVICTED_CELLS: Final = "reasonserve.kv.round.evicted_cells"
ROUND_SECONDS: Final = "reasonserve.kv.round.seconds"
ROUND_LAYER_BUDGETS: Final = "reasonserve.kv.round.layer_budgets"
ROUND_HEAD_MIN: Final = "reasonserve.kv.round.head_min"
ROUND_HEAD_MAX: Final = "reasonserve.kv.round.head_max"

TREE_ATTRIBUTES: Final = (
    TENANT_ID,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    CACHED_TOKENS,
    KV_METHOD,
    KV_BUDGET_TOKENS,
    KV_WISHED_TOKENS,
    KV_PROFILE,
    KV_RESERVED_SLOTS,
    KV_PEAK_SLOTS,
    KV_ROUNDS,
    KV_SQUEEZES,
    FINISH_REASONS,
    QUEUED_S,
    RETRY_AFTER_S,
    ERROR_TYPE,
)
"""What a person wants to see of a span, in order."""


def inference_span_name(operation: str, model: str) -> str:
    """Returns the name of the engine's span: ``{operation} {model}``."""
    return f"{operation} {model}"
