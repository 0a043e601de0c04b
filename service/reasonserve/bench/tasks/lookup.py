"""Look-ups in a table of labelled records, in random order.

    <bos> #4 v7=3 ; #9 v1=0 ; ... | #9 #4 > ?
    #9 v1=0 ; #4 v7=3 ; <eos>

``retrieval`` asks for eight of 48 records. ``multikey`` asks for 32 of 56 in one answer, which is hard on methods that
go by past attention: the records that are asked for last were read by nobody when the first rounds choose.
"""

from __future__ import annotations

from reasonserve.bench.tasks import words
from reasonserve.bench.tasks.sample import Grade, Sample, Split, generator, grade_parts

WORDS_PER_RECORD = 3
RETRIEVAL = (48, 8)
MULTIKEY = (56, 32)
"""Records in the table, and how many are asked for."""


def make_retrieval(split: Split, index: int) -> Sample:
    """Returns one question of ``retrieval``."""
    return _make("retrieval", split, index, *RETRIEVAL)


def make_multikey(split: Split, index: int) -> Sample:
    """Returns one question of ``multikey``."""
    return _make("multikey", split, index, *MULTIKEY)


def _make(task: str, split: Split, index: int, records: int, asked: int) -> Sample:
    chance = generator(task, split, index)
    labels = chance.sample(range(1, words.NUM_LABELS + 1), records)
    table = {
        words.label(number): words.binding(chance.randrange(words.NUM_VARIABLES), chance.randrange(words.NUM_DIGITS))
        for number in labels
    }
    keys = chance.sample(list(table), asked)
    body = " ".join(f"{key} {value} ;" for key, value in table.items())
    answer = " ".join(f"{key} {table[key]} ;" for key in keys)
    prompt = f"{words.BEGIN} {body} | {' '.join(keys)} > ?"
    return Sample(f"{task}/{split}/{index}", prompt, f"{answer} {words.END}")


def grade(sample: Sample, output: str) -> Grade:
    """Counts the records that are said right, in order; correct when all are."""
    part = grade_parts(output.split(), sample.answer.split()[:-1], WORDS_PER_RECORD)
    return Grade(correct=part == 1.0, part=part)
