"""From what a user calls a model to a folder on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from reasonserve.errors import StartupError
from reasonserve.models.cache import ModelCache
from reasonserve.models.convert import convert_gguf
from reasonserve.models.fetch import fetch_gguf
from reasonserve.models.folder import validate_folder
from reasonserve.models.progress import Progress, silent
from reasonserve.models.registry import BUILTIN_MODELS, BuiltinModel

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Weights in other formats would only take room.
_HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


def resolve_model(source: str, progress: Progress = silent, *, cache: ModelCache | None = None) -> Path:
    """The folder of a model, fetched when it must be.

    Args:
        source: A built-in name, a local folder, or a Hugging Face id ``org/name``. A folder that
            exists wins over an id of the same spelling.
        progress: Told each slow step.
        cache: Where built-in models are kept; None is the user's.

    Returns:
        An absolute path with config, safetensors weights and tokenizer.

    Raises:
        StartupError: The model cannot be had; says what is allowed and what to do.
    """
    if model := BUILTIN_MODELS.get(source):
        return fetch_builtin(model, progress, cache or ModelCache.default())
    folder = Path(source).expanduser()
    if source and folder.is_dir():
        return validate_folder(folder)
    if _HUB_ID.fullmatch(source):
        return validate_folder(_fetch_from_hub(source, progress))
    raise StartupError(
        f"{source!r} is no model. Allowed: a built-in name ({', '.join(BUILTIN_MODELS)}), "
        "an existing folder with config.json and safetensors, or a Hugging Face id such as org/name."
    )


def fetch_builtin(model: BuiltinModel, progress: Progress, cache: ModelCache) -> Path:
    """The cached folder of a built-in model; downloads and converts it the first time.

    Raises:
        StartupError: It cannot be downloaded, is not the pinned content, or cannot be converted.
    """

    def make(work: Path) -> Path:
        gguf = fetch_gguf(model, work, progress)
        return convert_gguf(gguf, work / "model", model.architecture, progress)

    return cache.find(model) or cache.build(model, make)


def _fetch_from_hub(repo_id: str, progress: Progress) -> Path:
    try:
        import httpx
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise StartupError(f"Fetching {repo_id} needs {error.name}; pip install 'reasonserve[engine]'.") from error
    progress(f"Fetching {repo_id} from the Hugging Face hub")
    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(_HUB_FILES)))
    except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
        raise StartupError(
            f"{repo_id} cannot be had from the Hugging Face hub: {str(error).splitlines()[0]} "
            "Check the id, the network and, for gated models, HF_TOKEN; or name a local folder."
        ) from error
