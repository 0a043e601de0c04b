"""Look-ups of many stated facts: programs whose lines read what the prompt states, never each other's results.

They are written and graded like ``chaser``. ``retrieval`` reads 28 facts again and again, at random. ``multikey``
reads each of 30 facts once, which is hard on methods that go by past attention: what is asked for last was read by
nobody when the first rounds choose.
"""

from __future__ import annotations

from reasonserve.bench.tasks.chaser import write
from reasonserve.bench.tasks.sample import Sample, Split, generator

RETRIEVAL = (28, 20)
MULTIKEY = (30, 15)
"""Facts that the prompt states, and lines that read two of them each."""


def make_retrieval(split: Split, index: int) -> Sample:
    """Returns one question of ``retrieval``."""
    chance = generator("retrieval", split, index)
    facts, lines = RETRIEVAL
    operands = [(chance.randrange(facts), chance.randrange(facts)) for _ in range(lines)]
    return write(f"retrieval/{split}/{index}", chance, facts, operands)


def make_multikey(split: Split, index: int) -> Sample:
    """Returns one question of ``multikey``."""
    chance = generator("multikey", split, index)
    facts, lines = MULTIKEY
    order = chance.sample(range(facts), 2 * lines)
    return write(f"multikey/{split}/{index}", chance, facts, list(zip(order[::2], order[1::2], strict=True)))
