"""Runs a model over known tokens with a compressed cache, many at a time. Loads torch and transformers.

Between two rounds a request's cache only grows, so all tokens between them take one forward pass; each round is run by
the functions that the engine runs. What comes out is what the engine would compute if the model had said these tokens.

Letters: B requests, M new tokens, K kept cells, Q query heads, H kv heads, D width of a head, W window, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from reasonalloc.centres import QueryCentres
from reasonalloc.levels import score_candidates
from reasonalloc.ops.keep import keep_top
from reasonalloc.scorers import SCORERS, Candidates, Centres
from reasonalloc.shapes import valid_mask
from reasonserve.engine.settings import EngineSettings
from reasonserve.kv import PromptModeName
from reasonserve.models.traces import Trace

ATTENTION = "reasonserve_simulated"
"""Name under which transformers finds ``attend``."""

SplitCells = Callable[[Tensor, Tensor], Tensor]
"""Called with a request's scores [L, H, N] and candidates [L, H] in a round; returns what each head keeps [L, H]."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """When rounds run, and by whose scores; see ``KvRequest``.

    Attributes:
        scorer: Name of a scorer without a running statistic.
        budget_tokens: S.
        buffer_tokens: T.
        prompt_mode: ``evictable`` or ``pinned``.
        centres: Of the model's queries; a calibrated scorer asks for them.
    """

    scorer: str
    budget_tokens: int
    buffer_tokens: int
    prompt_mode: PromptModeName = "evictable"
    centres: QueryCentres | None = None

    def __post_init__(self) -> None:
        if SCORERS[self.scorer].statistic is not None:
            raise ValueError(f"scorer {self.scorer} carries a statistic from round to round; give one that does not")
        if SCORERS[self.scorer].calibrated and self.centres is None:
            raise ValueError(f"scorer {self.scorer} goes by centres of the queries; give those of a profile")

    def pinned(self, trace: Trace) -> int:
        """Returns the leading tokens of a trace that never compete."""
        return trace.prompt_tokens if self.prompt_mode == "pinned" else 0

    def stored_at(self, trace: Trace) -> list[int]:
        """Returns how many of a trace's tokens are stored when each round runs."""
        full = self.pinned(trace) + self.budget_tokens + self.buffer_tokens
        first = max(full, trace.prompt_tokens + EngineSettings().window_tokens)
        return list(range(first, len(trace.tokens), self.buffer_tokens))


class _Layer:
    """One layer's lists of kept cells: keys and values [B, H, K, D], lengths [B, H], newest queries [B, W, Q, D]."""

    def __init__(self, window: int) -> None:
        self._window = window
        self.keys = self.values = self.lengths = self.queries = torch.empty(0)
        self.counts = torch.empty(0)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """Attends from new tokens [B, Q, M, D] to the lists and, causally, to new ones; then appends these."""
        batch, num_heads, width, head_dim = queries.shape
        if not self.keys.numel():
            self.keys, self.values = keys[:, :, :0], values[:, :, :0]
            self.lengths = torch.zeros(keys.shape[:2], dtype=torch.int64)
            self.queries = queries[:, :, :0].transpose(1, 2)
        kept_BHK = valid_mask(self.lengths, self.keys.shape[2])
        causal_MM = torch.ones(width, width, dtype=torch.bool).tril()
        new_BMM = causal_MM & (torch.arange(width) < self.counts[:, None])[:, None, :]
        mask_BHMN = torch.cat(
            [
                kept_BHK[:, :, None].expand(-1, -1, width, -1),
                new_BMM[:, None].expand(-1, keys.shape[1], -1, -1),
            ],
            dim=3,
        )
        group = num_heads // keys.shape[1]
        all_keys, all_values = torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)
        by_head = queries.reshape(batch, keys.shape[1], group * width, head_dim)
        output = scaled_dot_product_attention(
            by_head, all_keys, all_values, attn_mask=mask_BHMN.repeat(1, 1, group, 1), scale=scaling
        )
        self._append(all_keys, all_values, queries, width)
        return output.view(batch, num_heads, width, head_dim).transpose(1, 2)

    def _append(self, all_keys: Tensor, all_values: Tensor, queries: Tensor, width: int) -> None:
        """Closes the gap between each list and the new tokens, and keeps the newest queries."""
        kept = self.keys.shape[2]
        lengths = self.lengths + self.counts[:, None]
        places = torch.arange(int(lengths.max()))
        source = torch.where(places < self.lengths[..., None], places, kept + places - self.lengths[..., None])
        source = source.clamp(0, kept + width - 1)
        self.keys, self.values = _take(all_keys, source), _take(all_values, source)
        self.lengths = lengths
        seen = torch.cat([self.queries, queries.transpose(1, 2)], dim=1)
        newest = self.queries.shape[1] + self.counts[:, None] - torch.arange(self._window, 0, -1)
        newest = newest.clamp(min=0)[..., None, None].expand(-1, -1, *seen.shape[2:])
        self.queries = seen.gather(1, newest)

    def keep(self, kept_BHN: Tensor) -> None:
        """Drops what is not kept, in order."""
        self.lengths = kept_BHN.sum(dim=2)
        order = kept_BHN.logical_not().to(torch.int8).argsort(dim=2, stable=True)[..., : int(self.lengths.max())]
        self.keys, self.values = _take(self.keys, order), _take(self.values, order)


class CompressedCache:
    """The caches of a batch of requests."""

    def __init__(self, num_layers: int) -> None:
        self.layers = [_Layer(EngineSettings().window_tokens) for _ in range(num_layers)]

    def expect(self, counts_B: Tensor) -> None:
        """Says how many of the next pass's tokens each request really has."""
        for layer in self.layers:
            layer.counts = counts_B

    def round(self, request: int, pinned: int, position: int, rounds: Rounds, split: SplitCells) -> None:
        """Runs one round of one request.

        Args:
            request: Its place in the batch.
            pinned: Leading tokens that do not compete.
            position: Tokens of it so far.
            rounds: Budget and scorer.
            split: Decides what each head keeps.
        """
        lengths_LH = torch.stack([layer.lengths[request] - pinned for layer in self.layers])
        longest = int(lengths_LH.max())
        keys, values = (
            torch.stack([_padded(getattr(layer, name)[request], pinned, longest) for layer in self.layers])
            for name in ("keys", "values")
        )
        candidates = Candidates(
            queries_RWQD=torch.stack([layer.queries[request] for layer in self.layers]),
            keys_RHND=keys,
            values_RHND=values,
            lengths_RH=lengths_LH,
            budget=rounds.budget_tokens,
            seeds_R=torch.arange(len(self.layers)),
            positions_R=torch.full((len(self.layers),), position),
            centres=Centres.of(rounds.centres) if rounds.centres else None,
        )
        scores_LHN = score_candidates(rounds.scorer, candidates).scores_RHN
        keep_LHN = keep_top(scores_LHN, lengths_LH, split(scores_LHN, lengths_LH))
        for layer, keep_HN in zip(self.layers, keep_LHN, strict=True):
            kept_BHN = valid_mask(layer.lengths, layer.keys.shape[2])
            kept_BHN[request, :, pinned:] = False
            width = min(longest, kept_BHN.shape[2] - pinned)
            kept_BHN[request, :, pinned : pinned + width] = keep_HN[:, :width]
            layer.keep(kept_BHN)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    scaling: float,
    *,
    compressed: CompressedCache,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention over compressed caches, as transformers calls it."""
    return compressed.layers[module.layer_idx].attend(query, key, value, scaling), None


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, lambda *_, **__: None)


@torch.inference_mode()
def replay(
    model: Any, traces: Sequence[Trace], rounds: Rounds, split: SplitCells, read: Callable[[int, int, Tensor], None]
) -> None:
    """Feeds traces to a model whose cache is compressed.

    Args:
        model: A causal language model of transformers whose attention implementation is ``ATTENTION``.
        traces: What to feed; all take part in every pass.
        rounds: When rounds run.
        split: Decides what each head keeps.
        read: Told request, first position and final hidden states [M, width] of each stretch of tokens.
    """
    cache = CompressedCache(model.config.num_hidden_layers)
    ends = [[*rounds.stored_at(trace), len(trace.tokens)] for trace in traces]
    for step in range(max(map(len, ends))):
        starts = [0 if step == 0 else end[min(step, len(end)) - 1] for end in ends]
        stops = [end[min(step, len(end) - 1)] for end in ends]
        counts = torch.tensor([stop - start for start, stop in zip(starts, stops, strict=True)])
        width = int(counts.max())
        ids = torch.zeros(len(traces), width, dtype=torch.int64)
        for row, (trace, start, stop) in enumerate(zip(traces, starts, stops, strict=True)):
            ids[row, : stop - start] = torch.tensor(trace.tokens[start:stop])
        positions = torch.tensor(starts)[:, None] + torch.arange(width)
        cache.expect(counts)
        hidden = model.get_decoder()(
            input_ids=ids, position_ids=positions, use_cache=False, compressed=cache
        ).last_hidden_state
        for row, (trace, end) in enumerate(zip(traces, ends, strict=True)):
            if counts[row]:
                read(row, starts[row], hidden[row, : counts[row]])
            if step < len(end) - 1:
                cache.round(row, rounds.pinned(trace), stops[row], rounds, split)


def _take(cells: Tensor, places: Tensor) -> Tensor:
    """Picks cells [B, H, N, D] by place [B, H, K]."""
    return cells.gather(2, places[..., None].expand(-1, -1, -1, cells.shape[3]))


def _padded(cells: Tensor, start: int, width: int) -> Tensor:
    """Cells [H, N, D] from a place on, exactly ``width`` of them."""
    part = cells[:, start : start + width]
    return torch.nn.functional.pad(part, (0, 0, 0, width - part.shape[1]))
