"""What a model says on probes with the full cache: the material of every calibration. Loads torch and transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteria

from reasonserve.errors import StartupError

MAX_PROBES = 8
"""A profile rests on few, held-out prompts, as the paper has it (arXiv 2606.11164, section 4.1)."""

Tick = Callable[[str, int, int], None]
"""Called with a phase, the steps done in it and the steps it has."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One prompt to calibrate on.

    Attributes:
        task: What kind of work it is; stability is judged between tasks.
        prompt: What the model reads: a question, or raw text where the model has no chat template.
    """

    task: str
    prompt: str


@dataclass(frozen=True, slots=True)
class Trace:
    """What a model said.

    Attributes:
        tokens: Token ids of prompt and output.
        prompt_tokens: How many of them are prompt.
    """

    tokens: tuple[int, ...]
    prompt_tokens: int

    @property
    def output_tokens(self) -> int:
        """Tokens that the model said."""
        return len(self.tokens) - self.prompt_tokens


def read_probes(text: str) -> list[Probe]:
    """Reads probes, one a line: a task, a tab and a prompt; a line without a tab is a task of its own.

    Raises:
        StartupError: There are too few or too many.
    """
    probes: list[Probe] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        task, tab, prompt = line.partition("\t")
        probes.append(Probe(task, prompt) if tab else Probe(f"prompt {len(probes) + 1}", task))
    check_probes(probes)
    return probes


def check_probes(probes: Sequence[Probe]) -> None:
    """Checks the number of probes.

    Raises:
        StartupError: There are too few or too many.
    """
    if not 2 <= len(probes) <= MAX_PROBES:
        raise StartupError(
            f"{len(probes)} probe prompts given; give 2 to {MAX_PROBES}: at least 2 to compare, at most {MAX_PROBES} "
            "for a profile is about the model and not about a data set."
        )


def shipped_probes() -> list[Probe]:
    """The eight short reasoning questions that come with the package."""
    return read_probes(resources.files("reasonserve.models").joinpath("probes.txt").read_text())


def probes_digest(probes: Sequence[Probe]) -> str:
    """SHA-256 of the prompts, hexadecimal."""
    return hashlib.sha256("\n".join(probe.prompt for probe in probes).encode()).hexdigest()


def load(folder: Path, attention: str, *, rounded: bool = False) -> Any:
    """Loads a model for calibration, on a GPU where there is one.

    Args:
        folder: A model folder.
        attention: Name of transformers' attention implementation.
        rounded: Whether to compute in the checkpoint's own precision on a CPU too, if it has matrix units for it. Half
            precision blurs the tail of the attention; other CPUs are no faster with it.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fast = rounded and bool(torch.cpu.get_capabilities().get("amx_bf16"))
    dtype = "auto" if device.type == "cuda" or fast else torch.float32
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention).to(device).eval()


class _Ticker(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped here
    """Never stops; tells the progress after each decode step."""

    def __init__(self, total: int, tick: Tick) -> None:
        self._done, self._total, self._tick = 0, total, tick

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        self._done += 1
        self._tick("Generating with the full cache", self._done, self._total)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


@torch.inference_mode()
def generate(model: Any, folder: Path, probes: Sequence[Probe], num_tokens: int, tick: Tick) -> list[Trace]:
    """Says greedily what the model says to all probes, in one batch.

    Args:
        model: From ``load``.
        folder: Its folder, for the tokenizer.
        probes: Prompts; as a user's turn where the model has a chat template.
        num_tokens: Most tokens to generate for each.
        tick: Told each step.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    batch = _encode(tokenizer, probes).to(model.device)
    output = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=num_tokens,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        stopping_criteria=[_Ticker(num_tokens, tick)],
    )
    width = batch["input_ids"].shape[1]
    ends = torch.tensor(model.generation_config.eos_token_id, device=output.device).view(-1)
    traces = []
    for tokens, mask in zip(output, batch["attention_mask"], strict=True):
        prompt_tokens = int(mask.sum())
        stops = torch.isin(tokens[width:], ends).nonzero()
        stop = width + int(stops[0]) + 1 if len(stops) else len(tokens)
        traces.append(Trace(tuple(tokens[width - prompt_tokens : stop].tolist()), prompt_tokens))
    return traces


def _encode(tokenizer: Any, probes: Sequence[Probe]) -> Any:
    options = {"padding": True, "return_tensors": "pt"}
    if not tokenizer.chat_template:
        return tokenizer([probe.prompt for probe in probes], **options)
    chats = [[{"role": "user", "content": probe.prompt}] for probe in probes]
    return tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=True, **options)
