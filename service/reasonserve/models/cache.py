"""The per-user cache of built-in models: each is whole or absent."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from reasonserve.models.registry import BuiltinModel
from reasonserve.models.settings import ModelSettings

# Raised when conversion changes what it writes, so that older folders are not used.
_CONVERSION = 1


@dataclass(frozen=True, slots=True)
class ModelCache:
    """Folders ``models/<name>/<revision>`` below a root.

    A folder is written beside its place, synced, then renamed: a reader sees all of it or none.
    A lock file per model keeps a second builder waiting for the first one's result.

    Attributes:
        root: The cache's root; created when first needed.
    """

    root: Path

    @classmethod
    def default(cls) -> ModelCache:
        """The cache of this user, or of ``REASONSERVE_CACHE``."""
        return cls(ModelSettings().cache)

    def place(self, model: BuiltinModel) -> Path:
        """Where the model belongs, there or not. The revision names source and conversion."""
        return self.root / "models" / model.name / f"{model.sha256[:12]}-{_CONVERSION}"

    def find(self, model: BuiltinModel) -> Path | None:
        """The model's folder, or None when it is not cached."""
        place = self.place(model)
        return place if place.is_dir() else None

    def build(self, model: BuiltinModel, make: Callable[[Path], Path]) -> Path:
        """Returns the model's folder, making it when absent.

        Args:
            model: The model.
            make: Gets an empty work folder on the cache's file system and returns the finished
                model folder inside it. Whatever it raises passes through and leaves nothing.
        """
        place = self.place(model)
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.parent / ".lock"):
            if place.is_dir():
                return place
            _sweep(place.parent)
            work = Path(tempfile.mkdtemp(prefix=_WORK_PREFIX, dir=place.parent))
            try:
                made = make(work)
                _sync_tree(made)
                made.rename(place)
                _sync(place.parent)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        return place


_WORK_PREFIX = ".work-"


def _sweep(folder: Path) -> None:
    """Removes what killed builders left; the caller holds the lock, so nobody is at work."""
    for leftover in folder.glob(f"{_WORK_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
