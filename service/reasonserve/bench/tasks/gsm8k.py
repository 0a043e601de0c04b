"""GSM8K (arXiv 2110.14168): school word problems with one number as the answer. The questions are read from a file."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

from reasonserve.bench.tasks.sample import Grade, Sample
from reasonserve.errors import InvalidRequestError

INSTRUCTION = "\nPlease reason step by step, and put your final answer within \\boxed{}."
"""Follows each question."""
_BOXED = re.compile(r"boxed\{([^{}]*)\}")
_NUMBER = re.compile(r"-?\d[\d,]*\.?\d*")


def read(file: Path) -> list[Sample]:
    """Reads the questions, in an order that is drawn once and for all.

    Args:
        file: JSON lines with ``question`` and ``answer``, the number after ``####``.

    Raises:
        InvalidRequestError: It cannot be read as that.
    """
    try:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        random.Random(0).shuffle(rows)
        pairs = [(row["question"], row["answer"].split("####")[1].strip().replace(",", "")) for row in rows]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InvalidRequestError(f"{file} does not hold GSM8K's questions as JSON lines: {error}.") from error
    return [Sample(f"gsm8k/test/{index}", q + INSTRUCTION, answer) for index, (q, answer) in enumerate(pairs)]


def grade(sample: Sample, output: str) -> Grade:
    """Compares the last boxed number, or else the last number, with the answer."""
    boxed = _BOXED.findall(output)
    numbers = _NUMBER.findall(boxed[-1] if boxed else output)
    said = float(numbers[-1].replace(",", "").rstrip(".")) if numbers else None
    correct = said is not None and abs(said - float(sample.answer)) < 1e-3
    return Grade(correct=correct, part=float(correct))
