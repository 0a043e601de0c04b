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
    operands = [(_operand(chance, known), _operand(chance, known)) for known in range(_GIVEN, _GIVEN + count)]
    return write(f"chaser/{split}/{index}", chance, _GIVEN, operands)


def _operand(chance: random.Random, known: int) -> int:
    draw = chance.random()
    if draw < _RECENT:
        return chance.randrange(max(0, known - 4), known)
    return chance.randrange(3 if draw < _RECENT + _HOT else known)


def write(name: str, chance: random.Random, given: int, operands: list[tuple[int, int]]) -> Sample:
    """Writes a program and its run.

    Args:
        name: Of the question.
        chance: Draws variables, digits, signs, the order of the lines and the question.
        given: Variables that the prompt states.
        operands: Of each line, by place: stated variables first, then results in order.
    """
    numbers = chance.sample(range(words.NUM_VARIABLES), given + len(operands))
    values = {number: chance.randrange(words.NUM_DIGITS) for number in numbers[:given]}
    opening = [words.binding(number, value) for number, value in values.items()]
    program: list[list[str]] = []
    work: list[str] = []
    for line, (first, second) in enumerate(operands, start=1):
        left, right, result, sign = numbers[first], numbers[second], numbers[given + line - 1], chance.choice("+-")
        values[result] = values[left if sign == "+" else right]
        label, names = words.label(line), [words.variable(number) for number in (left, right, result)]
        bound = [words.binding(number, values[number]) for number in (left, right, result)]
        program.append([label, names[0], sign, names[1], "=", names[2], ";"])
        work += [label, names[0], bound[0], sign, names[1], bound[1], "=", names[2], bound[2], ";"]
    chance.shuffle(program)
    asked = chance.choice(numbers[given:])
    text = [word for row in program for word in row]
    question = [words.BEGIN, *opening, "|", *text, ">", words.variable(asked), "?"]
    answer = [*work, words.variable(asked), words.binding(asked, values[asked]), words.END]
    return Sample(name, " ".join(question), " ".join(answer))


def grade(sample: Sample, output: str) -> Grade:
    """Compares the final binding, and the program's lines one by one."""
    said, expected = output.split(), sample.answer.split()
    lines = grade_parts(said, expected[:-3], WORDS_PER_LINE)
    return Grade(correct=said[-2:] == expected[-2:], part=lines)
