"""Finds the split of a budget over layers that costs the model least, by measuring. Loads torch and transformers.

The loss of a split is the Kullback-Leibler divergence of the model's next-token distribution with a compressed cache
from that with the full one, over what the model itself says on the probes: no answer is needed. The cache is
compressed by the scorer, the head rule and the rounds that will serve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reasonalloc.methods import Triple
from reasonalloc.profile import LayerProfile
from reasonserve.engine.methods import split_budget
from reasonserve.engine.settings import EngineSettings
from reasonserve.kv import MIN_BUDGET_TOKENS
from reasonserve.models.search import Found, search
from reasonserve.models.simulate import ATTENTION, Rounds, SplitCells, replay
from reasonserve.models.traces import Probe, Tick, Trace, check_probes, generate, load, probes_digest

METHOD = Triple("wave", "reasonalloc", "rkv")
"""What splits are judged under; its layer rule takes the shares that are tried."""

_BUDGET_SHARES = (0.33, 0.5)
"""Budgets, of the traces' median length: rounds that hurt, and rounds that hardly do."""
_MAX_GROUPS = 8
_HELD_OUT = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensitivity:
    """What the search showed.

    Attributes:
        num_kv_heads: K.
        shares: Share of each layer, of the mean; their mean is 1. [L]
        rises: Rise of the loss's logarithm when a layer's group gave up half of its share. [L]
        evidence: Figures of the search.
        generated_tokens: Tokens that each probe generated, [P].
        probes_digest: SHA-256 of the probes, hexadecimal.
    """

    num_kv_heads: int
    shares: tuple[float, ...]
    rises: tuple[float, ...]
    evidence: dict[str, float]
    generated_tokens: tuple[int, ...]
    probes_digest: str


class Judge:
    """Says what a split costs on some traces."""

    def __init__(self, model: Any, traces: Sequence[Trace], rounds: Sequence[Rounds], method: Triple) -> None:
        self._model, self._traces, self._rounds, self._method = model, traces, rounds, method
        self._full = self._hidden(Rounds(method.scorer, max(len(trace.tokens) for trace in traces), 1), _keep_all)

    def divergences(self, profile: LayerProfile | None) -> list[float]:
        """Returns the mean divergence per output token at each budget, in nats.

        Args:
            profile: What the layer rule splits by; None where it needs none.
        """
        return [self._divergence(self._hidden(rounds, self._split(profile, rounds))) for rounds in self._rounds]

    def divergences_of_shares(self, shares: Sequence[float]) -> list[float]:
        """Returns the same for shares of the layers."""
        return self.divergences(trial_profile(shares, self._model.config.num_key_value_heads))

    def loss(self, shares: Sequence[float]) -> float:
        """Returns the mean logarithm of the divergences, so that every budget counts alike."""
        divergences = self.divergences_of_shares(shares)
        return math.fsum(math.log(max(value, 1e-9)) for value in divergences) / len(divergences)

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
        for full, compressed in zip(self._full, hidden, strict=True):
            wanted, got = head(full).log_softmax(-1), head(compressed).log_softmax(-1)
            total += float((wanted.exp() * (wanted - got)).sum())
        return total / sum(map(len, hidden))


def calibrate_sensitivity(
    folder: Path, probes: Sequence[Probe], num_tokens: int, evaluations: int, tick: Tick, method: Triple = METHOD
) -> Sensitivity:
    """Searches for the split on most probes, and checks it on the others.

    A split that does not lose less than equal shares on the probes that were held out is not believed: then the
    shares are equal.

    Args:
        folder: A model folder.
        probes: Prompts.
        num_tokens: Most tokens to generate for each.
        evaluations: Most splits to try.
        tick: Told the progress.
        method: Head rule and scorer to judge under.

    Raises:
        StartupError: Too few or too many probes.
    """
    check_probes(probes)
    model = load(folder, "sdpa")
    traces = generate(model, folder, probes, num_tokens, tick)
    model.set_attn_implementation(ATTENTION)
    held_out = max(1, round(len(traces) * _HELD_OUT))
    rounds = [_rounds(traces, share, method) for share in _BUDGET_SHARES]
    judge, check = (Judge(model, part, rounds, method) for part in (traces[:-held_out], traces[-held_out:]))
    layers = np.array_split(np.arange(model.config.num_hidden_layers), min(_MAX_GROUPS, model.config.num_hidden_layers))
    sizes = [len(group) for group in layers]
    done = 0

    def loss_of(shares: Sequence[float]) -> float:
        nonlocal done
        done += 1
        tick("Trying splits", done, evaluations)
        return judge.loss(np.repeat(shares, sizes).tolist())

    found = search(loss_of, sizes, evaluations)
    tick("Trying splits", evaluations, evaluations)
    shares, evidence = _checked(found, sizes, judge, check, rounds)
    return Sensitivity(
        num_kv_heads=model.config.num_key_value_heads,
        shares=shares,
        rises=tuple(np.repeat(found.rises, sizes).tolist()),
        evidence=evidence,
        generated_tokens=tuple(trace.output_tokens for trace in traces),
        probes_digest=probes_digest(probes),
    )


def trial_profile(shares: Sequence[float], num_kv_heads: int) -> LayerProfile:
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
    )


def _rounds(traces: Sequence[Trace], share: float, method: Triple) -> Rounds:
    budget = max(MIN_BUDGET_TOKENS, 8 * round(share * median(len(trace.tokens) for trace in traces) / 8))
    return Rounds(method.scorer, budget, max(EngineSettings().window_tokens, budget // 12))


def _keep_all(_: Tensor, lengths: Tensor) -> Tensor:
    return lengths


def _checked(
    found: Found, sizes: Sequence[int], judge: Judge, check: Judge, rounds: Sequence[Rounds]
) -> tuple[tuple[float, ...], dict[str, float]]:
    """Shares of the layers, equal where the found ones do not hold on other probes; and the figures."""
    equal, shares = [1.0] * sum(sizes), np.repeat(found.shares, sizes).tolist()
    fit, held_out = ((part.divergences_of_shares(equal), part.divergences_of_shares(shares)) for part in (judge, check))
    evidence = {"evaluations": float(found.evaluations)}
    for place, these in enumerate(rounds):
        name = f"budget_{these.budget_tokens}"
        evidence[f"{name}_kl_uniform"], evidence[f"{name}_kl_found"] = fit[0][place], fit[1][place]
        evidence[f"{name}_kl_uniform_held_out"] = held_out[0][place]
        evidence[f"{name}_kl_found_held_out"] = held_out[1][place]
    holds = math.prod(held_out[1]) < math.prod(held_out[0])
    rounded = {name: round(value, 4) for name, value in evidence.items()}
    return tuple(shares if holds else equal), rounded
