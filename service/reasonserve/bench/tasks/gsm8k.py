"""GSM8K (arXiv 2110.14168): school word problems with one number as the answer. The questions are read from a file."""

from __future__ import annotations

import hashlib
import json
import random
import re
from pathlib import Path

from reasonserve.bench.tasks.sample import Grade, Sample
from reasonserve.errors import InvalidRequestError

INSTRUCTION = "\nPlease reason step by step, and put your final answer within \\boxed{}."
"""Follows each question."""
SOURCE = "grade_school_math/data/test.jsonl of github.com/openai/grade-school-math (MIT)"
"""Where the test questions are published."""
SHA256 = "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14"
"""Of that file."""
_BOXED = re.compile(r"boxed\{([^{}]*)\}")
_NUMBER = re.compile(r"-?\d[\d,]*\.?\d*")


def read(file: Path, sha256: str = SHA256) -> list[Sample]:
    """Reads the questions, in an order that is drawn once and for all.

    Args:
        file: JSON lines with ``question`` and ``answer``, the number after ``####``.
        sha256: What the file must hash to: a sample's name is a place in it, so runs on other files would be mixed up.

    Raises:
        InvalidRequestError: It cannot be read, or is another file.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"{file} cannot be read: {error.strerror}. It should be {SOURCE}.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise InvalidRequestError(f"{file} has sha256 {found}, not {sha256} of GSM8K's test questions; give {SOURCE}.")
    rows = [json.loads(line) for line in content.splitlines()]
    random.Random(0).shuffle(rows)
    pairs = [(row["question"], row["answer"].split("####")[1].strip().replace(",", "")) for row in rows]
    return [Sample(f"gsm8k/test/{index}", q + INSTRUCTION, answer) for index, (q, answer) in enumerate(pairs)]


def grade(sample: Sample, output: str) -> Grade:
    """Compares the last boxed number, or else the last number, with the answer."""
    boxed = _BOXED.findall(output)
    numbers = _NUMBER.findall(boxed[-1] if boxed else output)
    said = float(numbers[-1].replace(",", "").rstrip(".")) if numbers else None
    correct = said is not None and abs(said - float(sample.answer)) < 1e-3
    return Grade(correct=correct, part=float(correct))
