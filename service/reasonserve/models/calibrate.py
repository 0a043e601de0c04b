"""Measures how the layers of a model spend attention while it decodes. Loads torch and transformers.

Level I of ReasonAlloc: run a few held-out probes with the full KV cache, and ask of each decode
query how many tokens it takes to cover a share ``rho`` of its attention. The paper leaves open
which queries count and whether demand is relative; here only decode queries do (the last
``WINDOW`` of every ``STRIDE`` steps), and demand is divided by the context it was measured in.

Letters: L layers, P probes, Q queries, T tokens, H query heads, K kv heads, G = H / K.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reasonalloc.centres import QueryCentres
from reasonalloc.demand import demand_of_rows
from reasonalloc.profile import PROFILE_RHOS
from reasonserve.errors import StartupError
from reasonserve.models import stability
from reasonserve.models.centres import measure_centres
from reasonserve.models.traces import Probe, Tick, check_probes, generate, load, probes_digest

STRIDE = 128
WINDOW = 8
# A short output is still looked at this often, so that no probe rests on one window.
_MIN_LOOKS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What the probes showed.

    Attributes:
        num_kv_heads: K.
        demand: By ``rho``: array [P, L], mean share of the context that covers ``rho`` of the attention.
        tasks: Task of each probe, [P].
        generated_tokens: Tokens that each probe generated, [P].
        probes_digest: SHA-256 of the probes, hexadecimal.
        queries: Centres of the queries before RoPE; None where the model has none.
    """

    num_kv_heads: int
    demand: dict[float, NDArray[np.float64]]
    tasks: tuple[str, ...]
    generated_tokens: tuple[int, ...]
    probes_digest: str
    queries: QueryCentres | None = None

    def curve(self, rho: float) -> tuple[float, ...]:
        """Demand of each layer at ``rho``, every probe weighing the same, to six digits; [L]."""
        return tuple(round(float(value), 6) for value in self.demand[rho].mean(axis=0))

    def evidence(self, rho: float) -> dict[str, float]:
        """How stable the curve at ``rho`` is, as Spearman's correlations of the layers' demand.

        Near 1 between tasks, the curve belongs to the model; near 0, to the choice of probes.
        """
        by_task = stability.between_groups(self.demand[rho], self.tasks)
        by_rho = [stability.spearman(self.curve(rho), self.curve(other)) for other in self.demand if other != rho]
        return {
            "spearman_tasks_mean": round(float(np.mean(by_task)), 3),
            "spearman_tasks_least": round(min(by_task), 3),
            "spearman_rhos_least": round(min(by_rho), 3),
        }


def decode_rows(prompt_tokens: int, total_tokens: int) -> list[int]:
    """Positions of the queries that are measured: the last ``WINDOW`` of every ``STRIDE`` decode steps.

    Example: with 10 prompt tokens and 522 in all, rows 130-137, 258-265, 386-393 and 514-521.
    Shorter outputs are divided into ``_MIN_LOOKS`` parts instead.
    """
    generated = total_tokens - prompt_tokens
    stride = min(STRIDE, max(WINDOW, generated // _MIN_LOOKS))
    ends = range(prompt_tokens + stride, total_tokens + 1, stride)
    return [row for end in ends for row in range(end - WINDOW, end)]


def calibrate(folder: Path, probes: Sequence[Probe], num_tokens: int, tick: Tick) -> Calibration:
    """Generates on the probes with the full cache, then measures one probe at a time.

    Args:
        folder: A model folder.
        probes: At least two, for the agreement of tasks.
        num_tokens: Most tokens to generate for each.
        tick: Told the progress.

    Raises:
        StartupError: Too few or many probes, a model whose attention cannot be read, or outputs too short to measure.
    """
    check_probes(probes)
    model = load(folder, "eager")
    config = model.config.get_text_config()
    traces = generate(model, folder, probes, num_tokens, tick)
    by_probe = []
    for done, trace in enumerate(traces):
        tick("Measuring attention", done, len(traces))
        rows = decode_rows(trace.prompt_tokens, len(trace.tokens))
        if not rows:
            raise StartupError(f"Probe {done + 1} generated {trace.output_tokens} tokens; {WINDOW} are needed.")
        tokens = torch.tensor(trace.tokens, device=model.device)
        by_probe.append(_measure(model, tokens, rows, config.num_hidden_layers, config.num_key_value_heads))
    tick("Measuring attention", len(traces), len(traces))
    return Calibration(
        num_kv_heads=config.num_key_value_heads,
        demand={rho: np.stack([probe[:, i] for probe in by_probe]) for i, rho in enumerate(PROFILE_RHOS)},
        tasks=tuple(probe.task for probe in probes),
        generated_tokens=tuple(trace.output_tokens for trace in traces),
        probes_digest=probes_digest(probes),
        queries=measure_centres(model, traces, tick),
    )


@torch.inference_mode()
def _measure(
    model: Any, tokens: Tensor, rows: Sequence[int], num_layers: int, num_kv_heads: int
) -> NDArray[np.float64]:
    """Demand of each layer in one teacher-forced pass over a probe's tokens; [L, len(PROFILE_RHOS)]."""
    demand: list[list[float]] = []
    positions = torch.tensor(rows, device=tokens.device)

    def read(weights: Tensor) -> None:
        rows = weights[0, :, positions].float()
        # Rounded to half precision, a row no longer adds up to 1.
        demand.append(layer_demand(rows / rows.sum(dim=-1, keepdim=True), positions, num_kv_heads))

    with _reading_attention(model, num_layers, read):
        model(input_ids=tokens[None], use_cache=False, logits_to_keep=1)
    return np.array(demand)


def layer_demand(weights: Tensor, positions: Tensor, num_kv_heads: int) -> list[float]:
    """Mean share of the context that each ``rho`` of ``PROFILE_RHOS`` takes in one layer.

    Args:
        weights: Attention [H, Q, T] of the measured queries; zero beyond a query's own position.
        positions: The queries' positions, [Q]; a query at position p has p + 1 tokens of context.
        num_kv_heads: K; a kv head needs what the neediest query head of its group needs.
    """
    num_heads, num_queries, num_tokens = weights.shape
    shares = []
    for rho in PROFILE_RHOS:
        demand = demand_of_rows(weights.reshape(-1, num_tokens), rho)
        by_kv_head = demand.view(num_kv_heads, num_heads // num_kv_heads, num_queries).amax(dim=1)  # [K, Q]
        shares.append(float((by_kv_head / (positions + 1)).mean()))
    return shares


@contextmanager
def _reading_attention(model: nn.Module, num_layers: int, read: Callable[[Tensor], None]) -> Iterator[None]:
    """Shows ``read`` the attention [1, H, T, T] of each layer in turn; one layer's is in memory at a time."""

    def hook(_module: nn.Module, _inputs: Any, outputs: Any) -> None:
        read(outputs[1])

    attentions = [module for name, module in model.named_modules() if name.endswith(".self_attn")]
    if len(attentions) != num_layers:
        raise StartupError(
            f"{type(model).__name__} has {len(attentions)} attention modules for {num_layers} layers; "
            "only models with ordinary attention in every layer can be calibrated."
        )
    handles = [module.register_forward_hook(hook) for module in attentions]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
