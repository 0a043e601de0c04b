"""Measures how the layers of a model spend attention while it decodes. Loads torch and transformers.

Level I of ReasonAlloc: run a few held-out probes with the full KV cache, and ask of each decode
query how many tokens it takes to cover a share ``rho`` of its attention. The paper leaves open
which queries count and whether demand is relative; here only decode queries do (the last
``WINDOW`` of every ``STRIDE`` steps), and demand is divided by the context it was measured in.

Letters: L layers, P probes, Q queries, T tokens, H query heads, K kv heads, G = H / K.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteria

from reasonalloc.demand import demand_of_rows
from reasonalloc.profile import PROFILE_RHOS
from reasonserve.errors import StartupError

STRIDE = 128
WINDOW = 8
# A short output is still looked at this often, so that no probe rests on one window.
_MIN_LOOKS = 4

Tick = Callable[[str, int, int], None]
"""Called with a phase, the steps done in it and the steps it has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What the probes showed.

    Attributes:
        num_kv_heads: K.
        demand: By ``rho``: array [P, L], mean share of the context that covers ``rho`` of the attention.
        generated_tokens: Tokens that each probe generated, [P].
        probes_digest: SHA-256 of the probes, hexadecimal.
    """

    num_kv_heads: int
    demand: dict[float, NDArray[np.float64]]
    generated_tokens: tuple[int, ...]
    probes_digest: str

    def curve(self, rho: float) -> tuple[float, ...]:
        """Demand of each layer at ``rho``, every probe weighing the same, to six digits; [L]."""
        return tuple(round(float(value), 6) for value in self.demand[rho].mean(axis=0))

    def agreement(self, rho: float) -> float:
        """Spearman's correlation of the layers' demand between even and odd probes, -1 to 1.

        Near 1, the curve belongs to the model; near 0, to the choice of probes.
        """
        ranks = [half.mean(axis=0).argsort().argsort() for half in (self.demand[rho][::2], self.demand[rho][1::2])]
        return float(np.corrcoef(ranks)[0, 1])


def shipped_probes() -> list[str]:
    """The eight short reasoning questions that come with the package."""
    return resources.files("reasonserve.models").joinpath("probes.txt").read_text().splitlines()


def decode_rows(prompt_tokens: int, total_tokens: int) -> list[int]:
    """Positions of the queries that are measured: the last ``WINDOW`` of every ``STRIDE`` decode steps.

    Example: with 10 prompt tokens and 522 in all, rows 130-137, 258-265, 386-393 and 514-521.
    Shorter outputs are divided into ``_MIN_LOOKS`` parts instead.
    """
    generated = total_tokens - prompt_tokens
    stride = min(STRIDE, max(WINDOW, generated // _MIN_LOOKS))
    ends = range(prompt_tokens + stride, total_tokens + 1, stride)
    return [row for end in ends for row in range(end - WINDOW, end)]


def calibrate(folder: Path, probes: Sequence[str], num_tokens: int, tick: Tick) -> Calibration:
    """Generates on the probes with the full cache, then measures one probe at a time.

    Args:
        folder: A model folder.
        probes: Questions; at least two, for the agreement of halves.
        num_tokens: Most tokens to generate for each.
        tick: Told the progress.

    Raises:
        StartupError: Too few probes, a model whose attention cannot be read, or outputs too short to measure.
    """
    if len(probes) < 2:
        raise StartupError(f"{len(probes)} probe prompts given; calibration compares two halves and needs at least 2.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Half precision would blur the tail of the attention, and a CPU is no faster with it.
    dtype = "auto" if device.type == "cuda" else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").to(device).eval()
    config = model.config.get_text_config()
    sequences = _generate(model, tokenizer, probes, num_tokens, tick)
    by_probe = []
    for done, (tokens, prompt_tokens) in enumerate(sequences):
        tick("Measuring attention", done, len(sequences))
        rows = decode_rows(prompt_tokens, len(tokens))
        if not rows:
            raise StartupError(f"Probe {done + 1} generated {len(tokens) - prompt_tokens} tokens; {WINDOW} are needed.")
        by_probe.append(_measure(model, tokens, rows, config.num_hidden_layers, config.num_key_value_heads))
    tick("Measuring attention", len(sequences), len(sequences))
    return Calibration(
        num_kv_heads=config.num_key_value_heads,
        demand={rho: np.stack([probe[:, i] for probe in by_probe]) for i, rho in enumerate(PROFILE_RHOS)},
        generated_tokens=tuple(len(tokens) - prompt_tokens for tokens, prompt_tokens in sequences),
        probes_digest=hashlib.sha256("\n".join(probes).encode()).hexdigest(),
    )


class _Ticker(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped here
    """Never stops; tells the progress after each decode step."""

    def __init__(self, total: int, tick: Tick) -> None:
        self._done, self._total, self._tick = 0, total, tick

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        self._done += 1
        self._tick("Generating with the full cache", self._done, self._total)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


@torch.inference_mode()
def _generate(
    model: Any, tokenizer: Any, probes: Sequence[str], num_tokens: int, tick: Tick
) -> list[tuple[Tensor, int]]:
    """Greedy outputs of all probes in one batch: tokens [T] without padding, and how many are prompt."""
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    chats = [[{"role": "user", "content": probe}] for probe in probes]
    batch = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    ).to(model.device)
    output = model.generate(
        **batch, max_new_tokens=num_tokens, do_sample=False, stopping_criteria=[_Ticker(num_tokens, tick)]
    )
    width = batch["input_ids"].shape[1]
    ends = torch.tensor(model.generation_config.eos_token_id, device=output.device).view(-1)
    sequences = []
    for tokens, mask in zip(output, batch["attention_mask"], strict=True):
        prompt_tokens = int(mask.sum())
        stops = torch.isin(tokens[width:], ends).nonzero()
        stop = width + int(stops[0]) + 1 if len(stops) else len(tokens)
        sequences.append((tokens[width - prompt_tokens : stop], prompt_tokens))
    return sequences


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
