"""Says what a split of a budget costs a model. Loads torch and transformers.

The loss of a split is the Kullback-Leibler divergence of the model's next-token distribution with a compressed cache
from that with the full one, over what the model itself says on the probes: no answer is needed. The cache is
compressed by the scorer, the head rule and the rounds that will serve.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from reasonalloc.methods import Triple
from reasonalloc.profile import LayerProfile
from reasonserve.engine.methods import split_budget
from reasonserve.engine.settings import EngineSettings
from reasonserve.models.simulate import Rounds, SplitCells, replay
from reasonserve.models.traces import Trace


class Judge:
    """Says what a split costs on some traces."""

    def __init__(self, model: Any, traces: Sequence[Trace], rounds: Sequence[Rounds], method: Triple) -> None:
        self._model, self._traces, self._rounds, self._method = model, traces, rounds, method
        longest = max(len(trace.tokens) for trace in traces)
        self._full = self._hidden(replace(rounds[0], budget_tokens=longest, buffer_tokens=1), _keep_all)

    def under(self, method: Triple) -> Judge:
        """Returns a judge of the same traces and rounds under other rules; the scorer must be the same."""
        other = copy.copy(self)
        other._method = method
        return other

    def divergences(self, profile: LayerProfile | None) -> list[float]:
        """Returns the mean divergence per output token at each budget, in nats.

        Args:
            profile: What the layer rule splits by; None where it needs none.
        """
        return [self._divergence(self._hidden(rounds, self._split(profile, rounds))) for rounds in self._rounds]

    def divergences_of_shares(self, shares: Sequence[float]) -> list[float]:
        """Returns the same for shares of the layers."""
        return self.divergences(trial_profile(shares, self._model.config.num_key_value_heads))

    def _split(self, profile: LayerProfile | None, rounds: Rounds) -> SplitCells:
        settings = EngineSettings()
        return lambda scores, lengths: split_budget(
            self._method, scores, lengths, rounds.budget_tokens, profile, settings
        )

    def _hidden(self, rounds: Rounds, split: SplitCells) -> list[Tensor]:
        """Final hidden states of every token but the last, by trace."""
        hidden = [torch.zeros(len(trace.tokens), self._model.config.hidden_size) for trace in self._traces]

        def read(request: int, start: int, states: Tensor) -> None:
            hidden[request][start : start + len(states)] = states

        replay(self._model, self._traces, rounds, split, read)
        return [states[trace.prompt_tokens - 1 : -1] for states, trace in zip(hidden, self._traces, strict=True)]

    @torch.inference_mode()
    def _divergence(self, hidden: Sequence[Tensor]) -> float:
        head, total = self._model.get_output_embeddings(), 0.0
        for both in zip(self._full, hidden, strict=True):
            wanted, got = (head(states.to(head.weight.dtype)).float().log_softmax(-1) for states in both)
            total += float((wanted.exp() * (wanted - got)).sum())
        return total / sum(map(len, hidden))


LEAST_NATS = 0.01
"""Divergence per token that counts as none: what is below it differs by chance, however often one is the other."""


def log_loss(divergences: Sequence[float]) -> float:
    """Mean logarithm of divergences, so that every budget counts alike."""
    return math.fsum(math.log(max(value, LEAST_NATS)) for value in divergences) / len(divergences)


def trial_profile(
    shares: Sequence[float], num_kv_heads: int, head_shares: Sequence[Sequence[float]] = ()
) -> LayerProfile:
    """A profile that splits a budget by shares, of no model."""
    return LayerProfile(
        model_fingerprint="trial",
        model_name="trial",
        num_layers=len(shares),
        num_kv_heads=num_kv_heads,
        demand=tuple(shares),
        demand_by_rho={},
        rho=0.0,
        gamma=1.0,
        kind="sensitivity",
        probes_digest="trial",
        created="2026-01-01",
        tool_version="trial",
        head_shares=tuple(map(tuple, head_shares)),
    )


def _keep_all(_: Tensor, lengths: Tensor) -> Tensor:
    return lengths
