"""The tasks by name: how a question is put, how long the answer may be, how it is graded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reasonserve.bench.tasks import chaser, gsm8k, gsm_symbolic, lookup
from reasonserve.bench.tasks.sample import Grade, Sample
from reasonserve.errors import InvalidRequestError

_SPARE_TOKENS = 8
"""What a synthetic answer may be longer than the right one."""


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of question.

    Attributes:
        name: What users write.
        make: Returns the question of an index.
        grade: Judges an output.
        chat: The question goes through the model's chat template.
        max_new_tokens: Longest answer; 0 is the right one's length and a few more.
    """

    name: str
    make: Callable[[int], Sample]
    grade: Callable[[Sample, str], Grade]
    chat: bool = False
    max_new_tokens: int = 0

    def limit(self, sample: Sample) -> int:
        """Returns the most tokens that may be generated for a question."""
        return self.max_new_tokens or len(sample.answer.split()) + _SPARE_TOKENS


_SYNTHETIC: dict[str, Callable[[int], Sample]] = {
    "chaser": partial(chaser.make, "test", lines=24),
    "chaser-long": partial(chaser.make, "test"),
    "retrieval": partial(lookup.make_retrieval, "test"),
    "multikey": partial(lookup.make_multikey, "test"),
}

TASKS = (*_SYNTHETIC, "gsm8k", "gsm_symbolic")
"""Names of the tasks: ``chaser`` has 24 lines, ``chaser-long`` 24 to 32."""


def find_task(name: str, gsm8k_file: Path | None, max_new_tokens: int) -> Task:
    """Returns a task.

    Args:
        name: One of ``TASKS``.
        gsm8k_file: GSM8K's test questions as JSON lines; needed by ``gsm8k``.
        max_new_tokens: Longest answer of ``gsm8k`` and ``gsm_symbolic``.

    Raises:
        InvalidRequestError: There is no such task, or its file or package is missing, or the file is another one.
    """
    if name in _SYNTHETIC:
        return Task(name, _SYNTHETIC[name], chaser.grade)
    if name == "gsm_symbolic":
        return Task(name, gsm_symbolic.questions(), gsm8k.grade, chat=True, max_new_tokens=max_new_tokens)
    if name != "gsm8k":
        raise InvalidRequestError(f"--tasks has {name!r}; allowed: {', '.join(TASKS)}.")
    if gsm8k_file is None:
        raise InvalidRequestError(f"Task gsm8k needs --gsm8k FILE: {gsm8k.SOURCE}.")
    questions = gsm8k.read(gsm8k_file)
    return Task(name, questions.__getitem__, gsm8k.grade, chat=True, max_new_tokens=max_new_tokens)
