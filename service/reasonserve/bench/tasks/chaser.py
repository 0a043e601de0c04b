"""Shuffled pointer-chaser: a program in random order of lines, run line by line in the answer.

    <bos> v3=8 v9=5 | #2 v41 - v3 = v17 ; #1 v3 + v9 = v41 ; > v17 ?
    #1 v3 v3=8 + v9 v9=5 = v41 v41=8 ; #2 v41 v41=8 - v3 v3=8 = v17 v17=8 ; v17 v17=8 <eos>

``+`` takes the left operand, ``-`` the right one: no arithmetic, only look-ups. Each line must be found in the
prompt by its label, and each operand's value in the newest lines or long before. So what is still needed (prompt lines
not reached, one binding of each live variable) is scattered among what is not (lines done, repeated bindings), and a
window of recent tokens is of little use.
"""

from __future__ import annotations

import random

from reasonserve.bench.tasks import words
from reasonserve.bench.tasks.sample import Grade, Sample, Split, generator, grade_parts

WORDS_PER_LINE = 10
_GIVEN = 6
"""Variables whose values the prompt states."""
_RECENT, _HOT = 0.5, 0.25
"""How often an operand is one of the last four results, and one of three variables that come again and again."""


def make(split: Split, index: int, lines: int | None = None) -> Sample:
    """Returns one question.

    Args:
        split: Stream of questions.
        index: Place in it.
        lines: Lines of the program; None draws 24 to 32.
    """
    chance = generator("chaser", split, index)
    count = lines if lines is not None else chance.randint(24, 32)
    given = _GIVEN
    numbers = chance.sample(range(words.NUM_VARIABLES), given + count)
    values = {number: chance.randrange(words.NUM_DIGITS) for number in numbers[:given]}
    opening = [words.binding(number, value) for number, value in values.items()]
    program, work = _program(chance, numbers, given, values)
    chance.shuffle(program)
    asked = chance.choice(numbers[given:])
    question = [
        words.BEGIN,
        *opening,
        "|",
        *(word for line in program for word in line),
        ">",
        words.variable(asked),
        "?",
    ]
    answer = [*work, words.variable(asked), words.binding(asked, values[asked]), words.END]
    return Sample(f"chaser/{split}/{index}", " ".join(question), " ".join(answer))


def _program(
    chance: random.Random, numbers: list[int], given: int, values: dict[int, int]
) -> tuple[list[list[str]], list[str]]:
    """Returns the lines in order and the words that run them; adds every result to ``values``."""
    program: list[list[str]] = []
    work: list[str] = []
    for place in range(given, len(numbers)):
        left, right, result = (_operand(chance, numbers, place), _operand(chance, numbers, place), numbers[place])
        sign = chance.choice("+-")
        values[result] = values[left if sign == "+" else right]
        name = words.label(place - given + 1)
        program.append([name, words.variable(left), sign, words.variable(right), "=", words.variable(result), ";"])
        work += [name, words.variable(left), words.binding(left, values[left]), sign, words.variable(right)]
        work += [words.binding(right, values[right]), "=", words.variable(result)]
        work += [words.binding(result, values[result]), ";"]
    return program, work


def _operand(chance: random.Random, numbers: list[int], known: int) -> int:
    draw = chance.random()
    if draw < _RECENT:
        return chance.choice(numbers[max(0, known - 4) : known])
    return chance.choice(numbers[:3] if draw < _RECENT + _HOT else numbers[:known])


def grade(sample: Sample, output: str) -> Grade:
    """Compares the final binding, and the program's lines one by one."""
    said, expected = output.split(), sample.answer.split()
    lines = grade_parts(said, expected[:-3], WORDS_PER_LINE)
    return Grade(correct=said[-2:] == expected[-2:], part=lines)
