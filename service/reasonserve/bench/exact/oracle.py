"""An independent judge of compressed output: Hugging Face transformers, eager attention, explicit masks.

Nothing is evicted here. Every layer's attention gets a mask that hides, per kv head and per query position,
what the engine said it had evicted by then; one pass over prompt and output then tells which token greedy
decoding takes at each position. If that is the engine's token everywhere, then by induction greedy decoding
under those masks gives the engine's whole output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from reasonserve.bench.exact.records import RoundRecord


@dataclass(frozen=True, slots=True)
class Divergence:
    """A position where the oracle takes another token.

    Attributes:
        index: Output token, from 0.
        margin: By how much the oracle's best logit beats the logit of the engine's token.
    """

    index: int
    margin: float


def visible(rounds: Sequence[RoundRecord], layer: int, num_kv_heads: int, length: int) -> torch.Tensor:
    """Says which position each query position sees.

    Returns:
        [H, length, length] bool, by kv head, query position, key position.
    """
    seen = torch.ones(length, length, dtype=torch.bool).tril().repeat(num_kv_heads, 1, 1)
    for n, record in enumerate(rounds):
        until = rounds[n + 1].stored if n + 1 < len(rounds) else length
        for head in range(num_kv_heads):
            gone = torch.ones(record.stored, dtype=torch.bool)
            gone[: record.pinned] = False
            gone[torch.from_numpy(record.kept_positions(layer, head))] = False
            seen[head, record.stored : until, : record.stored][:, gone] = False
    return seen


class Oracle:
    """A model in float32 with eager attention."""

    def __init__(self, model: str) -> None:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()  # the caller has its own
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        config = self._model.config
        self._num_kv_heads = int(config.num_key_value_heads)
        self._group = int(config.num_attention_heads) // self._num_kv_heads

    @torch.inference_mode()
    def logits(self, prompt: list[int], tokens: list[int], rounds: Sequence[RoundRecord]) -> torch.Tensor:
        """Returns the logits that choose each output token. [len(tokens), vocabulary] float32

        Args:
            prompt: Token ids.
            tokens: The engine's output, which is fed back as it is.
            rounds: The engine's rounds, oldest first.
        """
        ids = torch.tensor([prompt + tokens[:-1]])
        with self._masked(rounds, ids.shape[1]):
            output = self._model(input_ids=ids, use_cache=False, logits_to_keep=len(tokens))
        return torch.as_tensor(output.logits[0])

    def judge(self, prompt: list[int], tokens: list[int], rounds: Sequence[RoundRecord]) -> list[Divergence]:
        """Returns every position where greedy decoding under the masks takes another token; empty is agreement."""
        logits = self.logits(prompt, tokens, rounds)
        taken = logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        best, choice = logits.max(-1)
        wrong = (choice != torch.tensor(tokens)).nonzero()[:, 0].tolist()
        return [Divergence(index=i, margin=float(best[i] - taken[i])) for i in wrong]

    @contextmanager
    def _masked(self, rounds: Sequence[RoundRecord], length: int) -> Iterator[None]:
        with ExitStack() as stack:
            for number, layer in enumerate(self._model.model.layers):
                seen_HTT = visible(rounds, number, self._num_kv_heads, length).repeat_interleave(self._group, 0)
                bias = torch.zeros(seen_HTT.shape).masked_fill_(~seen_HTT, torch.finfo(torch.float32).min)[None]
                handle = layer.self_attn.register_forward_pre_hook(_with_mask(bias), with_kwargs=True)
                stack.callback(handle.remove)
            yield


def _with_mask(bias: torch.Tensor) -> Any:
    def replace(_: Any, arguments: Any, keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return arguments, {**keywords, "attention_mask": bias}

    return replace
