"""GGUF to a Hugging Face folder: bfloat16 safetensors, tokenizer, chat template.

The work is done by a child process (``python -m reasonserve.models.convert``), so that the caller
neither loads torch nor keeps its memory, and foreign progress bars and warnings stay apart.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from reasonserve.errors import StartupError
from reasonserve.models.folder import read_config, validate_folder
from reasonserve.models.progress import Progress


def convert_gguf(gguf: Path, into: Path, architecture: str, progress: Progress) -> Path:
    """Writes the model of a GGUF file as a folder that transformers and SGLang load.

    Args:
        gguf: The file.
        into: The folder to make.
        architecture: Class that the result must be.
        progress: Told each step.

    Returns:
        ``into``, validated.

    Raises:
        StartupError: The engine's packages are missing, or the file is not such a model.
    """
    progress(f"Converting {gguf.stem} to bfloat16 safetensors (about half a minute)")
    command = [sys.executable, "-m", "reasonserve.models.convert", str(gguf), str(into)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise StartupError(f"{gguf.name} could not be converted: {reason}. Is 'reasonserve[engine]' installed?")
    found = read_config(into).get("architectures")
    if found != [architecture]:
        raise StartupError(f"{gguf.name} holds {found}, not [{architecture!r}].")
    return validate_folder(into)


def _convert(gguf: Path, into: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # Without dequantize, newer releases keep the packed blocks, which save_pretrained cannot write.
    plain = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=plain
    )
    model.save_pretrained(into)
    tokenizer.save_pretrained(into)
    add_rope_theta(into / "config.json")


def add_rope_theta(path: Path) -> None:
    """Repeats the rotary base where readers older than ``rope_parameters`` look for it."""
    config = json.loads(path.read_text())
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    path.write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    _convert(Path(sys.argv[1]), Path(sys.argv[2]))
