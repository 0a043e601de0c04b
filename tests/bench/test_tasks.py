"""The synthetic tasks, judged by solvers of their own that only read the prompt."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonserve.bench.tasks import chaser, lookup, words
from reasonserve.bench.tasks.sample import Grade, Sample

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
def test_look_ups_read_stated_facts_only_and_multikey_each_once(split, index):
    for make, (facts, lines) in ((lookup.make_retrieval, lookup.RETRIEVAL), (lookup.make_multikey, lookup.MULTIKEY)):
        sample = make(split, index)
        values, asked = run_program(sample.prompt)
        said = sample.answer.split()
        assert said[-2] == f"{asked}={values[asked]}"
        stated = {word.split("=")[0] for word in sample.prompt.split(" | ")[0].split()[1:]}
        read = [said[start + place].split("=")[0] for start in range(0, 10 * lines, 10) for place in (2, 5)]
        assert len(stated) == facts
        assert set(read) <= stated
        assert make is lookup.make_retrieval or len(set(read)) == len(read) == facts


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
    assert chaser.grade(sample, sample.answer) == Grade(correct=True, part=1.0)
    assert chaser.grade(sample, "") == Grade(correct=False, part=0.0)
    said = sample.answer.split()
    lines = len(said) // 10
    assert chaser.grade(sample, " ".join([*said[:-2], "v0", words.END])) == Grade(correct=False, part=1.0)
    assert chaser.grade(sample, " ".join(["#9", *said[1:]])) == Grade(correct=True, part=pytest.approx(1 - 1 / lines))
