"""Samples on disk, one JSON object a line: what a run has is never asked again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reasonserve.bench.accuracy.plan import Cell
from reasonserve.errors import InvalidRequestError

Record = dict[str, Any]


class SampleFile:
    """The samples of one model, by cell and question.

    Attributes:
        path: The file; lines are only ever appended.
    """

    def __init__(self, path: Path, model_fingerprint: str) -> None:
        self.path = path
        self._model = model_fingerprint
        self._records: dict[str, Record] = {}
        if path.is_file():
            for line in path.read_text().splitlines():
                self._take(line)

    def get(self, cell: Cell, name: str, profile_id: str) -> Record | None:
        """Returns a sample, or None where it was not asked yet with this profile."""
        return self._records.get(_key(self._model, cell.key(), name, profile_id))

    def add(self, records: Iterable[Record]) -> None:
        """Appends samples."""
        with self.path.open("a") as file:
            for record in records:
                line = json.dumps({"model": self._model, **record})
                file.write(line + "\n")
                self._take(line)

    def _take(self, line: str) -> None:
        try:
            record = json.loads(line)
            key = _key(record["model"], record["cell"], record["name"], record["profile_id"])
        except (ValueError, LookupError, TypeError):
            # The last line of a killed run may be cut short; its question is asked again.
            return
        self._records[key] = record


def open_samples(path: Path, model_fingerprint: str) -> SampleFile:
    """Opens a file of samples, made when absent.

    Raises:
        InvalidRequestError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise InvalidRequestError(f"Cannot write samples to {path}: {error.strerror}. Name another file.") from error
    return SampleFile(path, model_fingerprint)


def _key(model: str, cell: dict[str, Any], name: str, profile_id: str) -> str:
    return json.dumps([model, cell, name, profile_id], sort_keys=True)
