"""The synthetic tasks, judged by solvers of their own that only read the prompt."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonserve.bench.tasks import chaser, lookup, words
from reasonserve.bench.tasks.sample import Sample

SPLITS = st.sampled_from(["train", "probe", "test"])
INDEX = st.integers(0, 10**6)


def run_program(prompt: str) -> tuple[dict[str, str], str]:
    """Interprets a chaser's prompt, its lines in order of their labels; returns all values and the asked variable."""
    opening, rest = prompt.removeprefix("<bos> ").split(" | ")
    program, question = rest.split(" > ")
    values = dict(word.split("=") for word in opening.split())
    lines = [line.split() for line in program.removesuffix(" ;").split(" ; ")]
    for _, left, sign, right, _, result in sorted(lines, key=lambda line: int(line[0][1:])):
        values[result] = values[left] if sign == "+" else values[right]
    return values, question.removesuffix(" ?")


@given(split=SPLITS, index=INDEX, lines=st.none() | st.integers(1, 32))
@settings(deadline=None, max_examples=60)
def test_the_answer_of_a_chaser_is_what_its_program_computes(split, index, lines):
    sample = chaser.make(split, index, lines)
    values, asked = run_program(sample.prompt)
    said = sample.answer.split()
    assert said[-3:] == [asked, f"{asked}={values[asked]}", words.END]
    assert all(values[word.split("=")[0]] == word.split("=")[1] for word in said if word[0] == "v" and "=" in word)
    labels = [word for word in said if word[0] == "#"]
    assert labels == [f"#{number}" for number in range(1, len(labels) + 1)]
    assert len(labels) == (lines or len(labels))
    assert lines is not None or 24 <= len(labels) <= 32


@given(split=SPLITS, index=INDEX)
@settings(deadline=None, max_examples=60)
def test_the_answers_of_look_ups_are_in_the_table(split, index):
    for make, (records, asked) in ((lookup.make_retrieval, lookup.RETRIEVAL), (lookup.make_multikey, lookup.MULTIKEY)):
        sample = make(split, index)
        table, keys = sample.prompt.removeprefix("<bos> ").removesuffix(" > ?").split(" | ")
        pairs = dict(record.split() for record in table.removesuffix(" ;").split(" ; "))
        expected = " ; ".join(f"{key} {pairs[key]}" for key in keys.split())
        assert sample.answer == f"{expected} ; {words.END}"
        assert (len(pairs), len(set(keys.split()))) == (records, asked)


@given(split=SPLITS, index=INDEX)
@settings(deadline=None, max_examples=30)
def test_a_name_is_one_question_for_ever(split, index):
    for make in (chaser.make, lookup.make_retrieval, lookup.make_multikey):
        first, again, other = make(split, index), make(split, index), make(split, index + 1)
        assert first == again
        assert first.prompt != other.prompt
        assert words.decode(words.encode(first.prompt)) == first.prompt


def test_the_splits_share_no_question():
    prompts = [chaser.make(split, index, 2).prompt for split in ("train", "probe", "test") for index in range(300)]
    assert len(set(prompts)) == len(prompts)


def test_the_lines_come_in_no_order():
    order = [word for word in chaser.make("test", 3, 32).prompt.split() if word[0] == "#"]
    assert order != sorted(order, key=lambda word: int(word[1:]))
    assert len(set(order)) == 32


@pytest.mark.parametrize("make", [chaser.make, lookup.make_retrieval, lookup.make_multikey])
def test_the_answer_is_graded_right_and_nothing_else_is(make):
    sample: Sample = make("test", 0)
    grade = chaser.grade if make is chaser.make else lookup.grade
    assert grade(sample, sample.answer) == grade(sample, sample.answer).__class__(correct=True, part=1.0)
    assert not grade(sample, "").correct
    assert grade(sample, "").part == 0.0
    said = sample.answer.split()
    said[-2] = "v0"  # the last value, or the last record's end
    wrong = grade(sample, " ".join(said))
    assert not wrong.correct
    assert wrong.part == pytest.approx(1.0 if make is chaser.make else 1 - 1 / len(sample.answer.split()[:-1]) * 3)
