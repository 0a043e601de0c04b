"""What an engine's rounds kept, rebuilt from its records: plain data, nothing of the engine's own code.

A record names candidates by their order. In the first round they are the tokens from ``pinned`` on; later
they are what the round before kept, then the tokens stored since.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round of one request.

    Attributes:
        stored: Tokens that were stored when it ran; queries from this position on see its choice.
        pinned: Leading tokens that took no part and stay visible.
        positions_LH: Candidates' true positions, ascending. [L][H] arrays
        scores_LH: Their scores. [L][H] arrays
        kept_LH: Which were kept. [L][H] arrays of bool
    """

    stored: int
    pinned: int
    positions_LH: list[list[npt.NDArray[np.int64]]]
    scores_LH: list[list[npt.NDArray[np.float32]]]
    kept_LH: list[list[npt.NDArray[np.bool_]]]

    def kept_positions(self, layer: int, head: int) -> npt.NDArray[np.int64]:
        """Returns the true positions that one head keeps, ascending."""
        return self.positions_LH[layer][head][self.kept_LH[layer][head]]


def read_records(folder: Path, request_id: str) -> list[RoundRecord]:
    """Reads a request's rounds, oldest first.

    Raises:
        ValueError: A round's candidates are not what the round before left.
    """
    records: list[RoundRecord] = []
    for file in sorted(folder.glob(f"{request_id}.[0-9][0-9][0-9][0-9].npz")):
        with np.load(file) as data:
            records.append(_rebuild(dict(data), records[-1] if records else None))
    return records


def _rebuild(data: dict[str, npt.NDArray[np.generic]], before: RoundRecord | None) -> RoundRecord:
    stored, pinned = int(data["stored"]), int(data["pinned"])
    lengths_LH, scores_LHN, keep_LHN = data["lengths_LH"], data["scores_LHN"], data["keep_LHN"]
    layers, heads = lengths_LH.shape
    record = RoundRecord(stored, pinned, [], [], [])
    for layer in range(layers):
        lengths = [int(lengths_LH[layer, head]) for head in range(heads)]
        positions = [_candidates(before, layer, head, stored, pinned) for head in range(heads)]
        if [len(p) for p in positions] != lengths:
            raise ValueError(f"Layer {layer} has {lengths} candidates; {[len(p) for p in positions]} were left.")
        record.positions_LH.append(positions)
        record.scores_LH.append([scores_LHN[layer, h, :n].astype(np.float32) for h, n in enumerate(lengths)])
        record.kept_LH.append([keep_LHN[layer, h, :n].astype(np.bool_) for h, n in enumerate(lengths)])
    return record


def _candidates(before: RoundRecord | None, layer: int, head: int, stored: int, pinned: int) -> npt.NDArray[np.int64]:
    if before is None:
        return np.arange(pinned, stored, dtype=np.int64)
    return np.concatenate([before.kept_positions(layer, head), np.arange(before.stored, stored, dtype=np.int64)])
