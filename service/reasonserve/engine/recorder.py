"""Writes down what each round decided, so that others can check it: one file per round, for audits only.

Off unless the environment names a folder. What is written are the scores and the choice, by the order of the
candidates; which tokens those were follows from the rounds before.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from reasonserve.engine.rounds import RoundOutput

RECORD_VARIABLE = "REASONSERVE_RECORD_ROUNDS"
"""Environment variable that names the folder; rounds get slower and the folder grows without bound."""


class RoundRecorder:
    """Writes ``<request>.<nnnn>.npz`` for the rounds of every request.

    Each file holds ``scores_LHN`` (float32), ``keep_LHN`` (bool), ``lengths_LH`` (candidates of each head),
    ``stored`` (tokens of the request that were stored when the round ran) and ``pinned`` (leading tokens that
    took no part).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[str, int] = {}

    @classmethod
    def from_environment(cls) -> RoundRecorder | None:
        """Returns a recorder where the environment names a folder."""
        folder = os.environ.get(RECORD_VARIABLE)
        return cls(Path(folder)) if folder else None

    def write(self, request_id: str, output: RoundOutput, stored: int, pinned: int) -> None:
        """Writes one round."""
        number = self._written.get(request_id, 0)
        self._written[request_id] = number + 1
        np.savez(
            self._folder / f"{request_id}.{number:04d}.npz",
            scores_LHN=output.scores_LHN.float().cpu().numpy(),
            keep_LHN=output.keep_LHN.cpu().numpy(),
            lengths_LH=output.candidates_LH.cpu().numpy(),
            stored=stored,
            pinned=pinned,
        )
