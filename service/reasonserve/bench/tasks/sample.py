"""What every task gives: a question, its answer, and a verdict on what a model said."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "probe", "test"]
"""Disjoint streams of questions: to train on, to calibrate on, to judge by."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One question.

    Attributes:
        name: ``task/split/index``; the same name is the same question for ever.
        prompt: What the model reads.
        answer: What it should say; for ``gsm8k`` the number alone.
    """

    name: str
    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Grade:
    """How right an output is.

    Attributes:
        correct: The final answer is right.
        part: Share of its parts (lines, values) that are right, 0 to 1.
    """

    correct: bool
    part: float


def generator(task: str, split: Split, index: int) -> random.Random:
    """Returns the source of chance of one question; no two questions share one."""
    return random.Random(f"{task}/{split}/{index}")


def grade_parts(said: list[str], expected: list[str], part_words: int) -> float:
    """Returns the share of an answer's parts of ``part_words`` words that are said in their place."""
    starts = range(0, len(expected) - part_words + 1, part_words)
    right = [said[start : start + part_words] == expected[start : start + part_words] for start in starts]
    return sum(right) / len(right)
