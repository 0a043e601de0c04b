"""What a request becomes before it is admitted: token ids, and options that this engine can honour."""

from __future__ import annotations

from dataclasses import replace

from reasonserve.errors import InvalidRequestError
from reasonserve.kv import needs_profile
from reasonserve.replica.messages import ChatInput, GenerateCall, Input, ModelInfo, PromptInput
from reasonserve.replica.protocol import ChatPrompt, Engine, Sampling
from reasonserve.replica.sizing import KvAsk


class Intake:
    """Holds requests against one engine's model.

    Args:
        engine: The engine.
        model: Name of the served model.
    """

    def __init__(self, engine: Engine, model: str) -> None:
        self._engine = engine
        self._model = model

    def model_info(self) -> ModelInfo:
        """Returns what the model can do."""
        return ModelInfo(
            name=self._model,
            context_length=self._engine.context_length,
            vocab_size=self._engine.vocab_size,
            handshake=self._engine.handshake,
            grammar_backend=self._engine.grammar_backend,
            reasoning_parser=self._engine.reasoning_parser,
            chat=self._engine.has_chat_template,
        )

    def encode(self, given: Input) -> ChatPrompt:
        """Returns an input's token ids, and whether it makes the model reason first.

        Raises:
            InvalidRequestError: The input has no tokens, or one outside the vocabulary.
        """
        if isinstance(given, PromptInput):
            return self._some(ChatPrompt(self._engine.encode(given.text)), "prompt")
        if isinstance(given, ChatInput):
            messages = [{"role": role, "content": content} for role, content in given.messages]
            return self._some(self._engine.encode_chat(messages, given.variables), "chat")
        for index, token_id in enumerate(given.ids):
            self._check_token(token_id, f"tokens.ids[{index}]")
        return ChatPrompt(list(given.ids))

    def fit(self, call: GenerateCall, *, prompt_tokens: int) -> Sampling:
        """Returns the sampling options with generation ending at the model's context length at the latest.

        A client sees that end as finish reason LENGTH.

        Raises:
            InvalidRequestError: The prompt leaves no room for a single new token, or an option cannot be honoured.
        """
        sampling = call.sampling
        self._check_kv(call.kv)
        self._check_sampling(sampling)
        room = self._engine.context_length - prompt_tokens
        if room < 1:
            raise InvalidRequestError(
                f"The input has {prompt_tokens} tokens; {self._model} takes {self._engine.context_length} of input and "
                "output together. Shorten the input.",
                field="input",
            )
        longest = min(sampling.max_new_tokens, room)
        return replace(sampling, max_new_tokens=longest, min_new_tokens=min(sampling.min_new_tokens, longest))

    def _some(self, prompt: ChatPrompt, field: str) -> ChatPrompt:
        if not prompt.ids:
            raise InvalidRequestError(f"{field} has no tokens; send at least one.", field=field)
        return prompt

    def _check_token(self, token_id: int, field: str) -> None:
        if not 0 <= token_id < self._engine.vocab_size:
            raise InvalidRequestError(
                f"{field} is {token_id}; token ids of {self._model} lie in [0, {self._engine.vocab_size}).",
                field=field,
            )

    def _check_sampling(self, sampling: Sampling) -> None:
        for index, token_id in enumerate(sampling.stop_token_ids):
            self._check_token(token_id, f"sampling.stop_token_ids[{index}]")
        for token_id, _ in sampling.logit_bias:
            self._check_token(token_id, "sampling.logit_bias")
        if sampling.grammar is not None and not self._engine.grammar_backend:
            field = f"sampling.{sampling.grammar.kind}"
            raise InvalidRequestError(
                f"{field} is given, and this engine runs without a grammar backend. Leave it out, or have the "
                "operator set engine.grammar_backend to xgrammar.",
                field=field,
            )

    def _check_kv(self, ask: KvAsk) -> None:
        handshake = self._engine.handshake
        if needs_profile(ask.method) and not handshake.profile_id:
            raise InvalidRequestError(
                f"kv.method is {ask.method!r}, which needs a layer profile of the model, and none is active; this "
                f"engine offers {', '.join(handshake.methods)}. Use one of these, or activate a profile.",
                field="kv.method",
            )
        if ask.prompt_mode not in handshake.prompt_modes:
            raise InvalidRequestError(
                f"kv.prompt_mode is {ask.prompt_mode!r}; this engine offers {', '.join(handshake.prompt_modes)}.",
                field="kv.prompt_mode",
            )
