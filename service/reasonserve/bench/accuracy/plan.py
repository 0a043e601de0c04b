"""What is compared: cells of one task, prompt mode, budget and method, each with the same questions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from reasonserve.errors import InvalidRequestError
from reasonserve.kv import MIN_BUDGET_TOKENS, PROMPT_MODES, PromptModeName, needs_profile, triple_of

DEFAULT_METHODS = (
    "full,reasonalloc,reasonalloc@sensitivity,r-kv,ada-rkv,pyramid-rkv,layer-only,layer-only@sensitivity,"
    "head-only,snapkv,random-pinned"
)
ALWAYS_PINNED = "random-pinned"
"""The method whose definition pins the prompt, whatever the others do; its cells in all are the same."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A method and the layer profile that it splits by.

    Attributes:
        method: One of ``METHODS`` or a triple.
        profile: ``wave``, ``sensitivity`` or the name of a profile given by file; empty where the method needs none.
    """

    method: str
    profile: str

    def __str__(self) -> str:
        return self.method if self.profile in ("", "wave") else f"{self.method}@{self.profile}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure of the table.

    Attributes:
        task: Name of the task.
        mode: Prompt mode.
        budget: Slots in all that a request keeps after a round, its pinned prompt included; 0 for ``full``.
        buffer: Tail slots between rounds.
        contender: Method and profile.
    """

    task: str
    mode: PromptModeName
    budget: int
    buffer: int
    contender: Contender

    def kv(self, prompt_tokens: int) -> dict[str, Any] | None:
        """Returns the request's KV options; None where the budget has no room beside a pinned prompt."""
        if self.contender.method == "full":
            return {"method": "full", "budget_tokens": 0}
        mode = "pinned" if self.contender.method == ALWAYS_PINNED else self.mode
        own = self.budget - (prompt_tokens if mode == "pinned" else 0)
        if own < MIN_BUDGET_TOKENS:
            return None
        options = {"budget_tokens": own, "buffer_tokens": self.buffer, "prompt_mode": mode}
        return {"method": self.contender.method, **options}

    def key(self) -> dict[str, Any]:
        """Returns what tells this cell's samples from others in a file."""
        return {**asdict(self), "contender": str(self.contender)}


def parse_contenders(text: str) -> list[Contender]:
    """Reads ``method`` or ``method@profile``, separated by commas.

    Raises:
        InvalidRequestError: There is no such method, or it takes no profile.
    """
    contenders = []
    for word in filter(None, map(str.strip, text.split(","))):
        method, at, profile = word.partition("@")
        try:
            triple_of(method)
        except ValueError as error:
            raise InvalidRequestError(f"--methods has {word!r}: {error}") from error
        profiled = method != "full" and needs_profile(method)
        if at and not profiled:
            raise InvalidRequestError(f"--methods has {word!r}, but {method} goes by no profile.")
        contenders.append(Contender(method, (profile or "wave") if profiled else ""))
    return contenders


def parse_modes(text: str) -> list[PromptModeName]:
    """Reads prompt modes, separated by commas.

    Raises:
        InvalidRequestError: There is no such mode.
    """
    words = [word.strip() for word in text.split(",")]
    modes = [mode for mode in PROMPT_MODES if mode in words]
    if unknown := sorted(set(words) - set(PROMPT_MODES)):
        raise InvalidRequestError(f"--modes has {unknown}; allowed: {', '.join(PROMPT_MODES)}.")
    return modes


def cells(
    tasks: list[str], modes: list[PromptModeName], budgets: list[int], buffer: int, contenders: list[Contender]
) -> list[Cell]:
    """Returns every combination; ``full`` once for each task, for no budget applies to it."""
    made = []
    for task in tasks:
        for contender in contenders:
            if contender.method == "full":
                made.append(Cell(task, modes[0], 0, buffer, contender))
            else:
                made += [Cell(task, mode, budget, buffer, contender) for mode in modes for budget in budgets]
    return made
