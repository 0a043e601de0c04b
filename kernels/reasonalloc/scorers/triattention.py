"""TriAttention (arXiv 2604.04921): how well a key answers the queries that are to come, by where queries lie.

Before RoPE the queries of a head lie around a centre ``q``. With pairs ``f`` as complex numbers, ``k`` a key before
RoPE at position ``p``, ``t`` the position of the next token and ``d`` in 1, 2, 4, ..., 65536:

    s_q = mean_d sum_f |q_f| |k_f| cos( w_f (t + d - p) + arg q_f - arg k_f )  +  sum_f (E|q_f| - |q_f|) |k_f|

The cache holds ``k exp(i w p)``, so no key's position is asked for: the first sum is the inner product of the stored
key with the mean of ``q exp(i w (t + d))``, the query that is expected. Over the past cells of a head scores are
brought to mean 0 and deviation 1, for each query head on its own; of the query heads that share a kv head the
greatest counts. That is the authors' selection for each layer and kv head on its own.
"""

import torch
from torch import Tensor

from reasonalloc.scorers.base import Candidates, Centres, Scored, Scorer, framed
from reasonalloc.shapes import valid_mask

WINDOW = 8
OFFSETS = tuple(2.0**power for power in range(17))
"""Tokens ahead at which queries are expected."""
_LEAST_DEVIATION = 1e-6


def score(candidates: Candidates) -> Scored:
    """The greatest of the query heads' standardised scores."""
    c = candidates
    rows, heads, width, head_dim = c.keys_RHND.shape
    assert c.centres is not None, "whoever runs rounds gives centres"
    assert c.positions_R is not None, "whoever runs rounds gives positions"
    past_RHN = valid_mask(c.lengths_RH - WINDOW, width)
    keys_RHND = c.keys_RHND.float().masked_fill(~past_RHN[..., None], 0)
    lengths_RHNF = torch.hypot(keys_RHND[..., : head_dim // 2], keys_RHND[..., head_dim // 2 :])
    expected_RHGD = expected_queries(c.centres, c.positions_R).view(rows, heads, -1, head_dim)
    spreads_RHGF = c.centres.spreads_RQF.view(rows, heads, -1, head_dim // 2)
    raw_RHGN = expected_RHGD @ keys_RHND.transpose(2, 3) + spreads_RHGF @ lengths_RHNF.transpose(2, 3)
    scores_RHN = _standardised(raw_RHGN, past_RHN[:, :, None]).amax(dim=2)
    return Scored(scores_RHN=framed(scores_RHN, c.lengths_RH, WINDOW))


def expected_queries(centres: Centres, positions_R: Tensor) -> Tensor:
    """Mean of the queries after RoPE that are to come.

    Args:
        centres: Of R rows.
        positions_R: int64 position of the next token.

    Returns:
        ``[R, Q, D]`` float32.
    """
    frequencies_F = centres.frequencies_F
    offsets_O = torch.tensor(OFFSETS, dtype=torch.float64, device=frequencies_F.device)
    angles_ROF = (positions_R[:, None, None].double() + offsets_O[:, None]) * frequencies_F
    cos_R1F, sin_R1F = (turn(angles_ROF).mean(dim=1, keepdim=True).float() for turn in (torch.cos, torch.sin))
    real_RQF, imaginary_RQF = centres.centres_RQD.chunk(2, dim=2)
    turned = real_RQF * cos_R1F - imaginary_RQF * sin_R1F, real_RQF * sin_R1F + imaginary_RQF * cos_R1F
    return torch.cat(turned, dim=2)


def _standardised(values_RHGN: Tensor, past_RH1N: Tensor) -> Tensor:
    """Values of the past with mean 0 and deviation 1; 0 elsewhere."""
    count_RH11 = past_RH1N.sum(dim=3, keepdim=True).clamp(min=1)
    centred_RHGN = (values_RHGN - values_RHGN.sum(dim=3, keepdim=True) / count_RH11) * past_RH1N
    deviation_RHG1 = (centred_RHGN.square().sum(dim=3, keepdim=True) / count_RH11).sqrt()
    return centred_RHGN / deviation_RHG1.clamp(min=_LEAST_DEVIATION)


SCORER = Scorer(score=score, window=WINDOW, calibrated=True)
