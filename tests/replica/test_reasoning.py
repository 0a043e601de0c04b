"""Reasoning apart from the answer, through SGLang's real parsers, however the text is cut."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonserve.errors import StartupError
from reasonserve.replica.protocol import EngineChunk
from reasonserve.replica.reasoning import ReasoningSplitter, load_detector, opens_reasoning, split_chunk

THOUGHT, ANSWER = "2 < 3, and </thin is no tag", "So: <b>3</b>."
WHOLE = f"<think>{THOUGHT}</think>{ANSWER}"


def split(pieces, parser="qwen3", in_reasoning=False):
    splitter = ReasoningSplitter(parser, in_reasoning, tokenizer=None)
    ends = ["", *[""] * (len(pieces) - 2), "stop"][-len(pieces) :]
    chunks = [
        split_chunk(splitter, EngineChunk(text=piece, token_ids=(1,), finish_reason=end))
        for piece, end in zip(pieces, ends, strict=True)
    ]
    return "".join(c.reasoning for c in chunks), "".join(c.text for c in chunks), chunks[-1].reasoning_tokens


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(1, len(WHOLE) - 1), unique=True, max_size=12))
def test_the_parts_are_the_same_however_the_text_is_cut(cuts):
    edges = [0, *sorted(cuts), len(WHOLE)]
    reasoning, answer, tokens = split([WHOLE[a:b] for a, b in pairwise(edges)])
    assert (reasoning, answer) == (THOUGHT, ANSWER)
    before_the_answer = sum(start < len(WHOLE) - len(ANSWER) for start in edges[:-1])
    assert tokens in (before_the_answer, before_the_answer - 1)  # the piece that ends the tag may begin the answer


def test_every_token_up_to_the_closing_tag_is_reasoning():
    pieces = ["<think>", "Two", " and", " two.", "</think>", "It", " is", " 4."]
    assert split(pieces) == ("Two and two.", "It is 4.", 5)


def test_a_block_that_the_prompt_opened_needs_no_opening_tag():
    assert split(["Hm", "</think>", "4"], in_reasoning=True)[:2] == ("Hm", "4")
    assert split(["Hm", "</think>", "4"], parser="deepseek-r1")[:2] == ("Hm", "4")


def test_an_answer_without_reasoning_stays_whole():
    assert split(["It is ", "4."]) == ("", "It is 4.", 0)


def test_reasoning_that_was_cut_short_has_no_answer():
    assert split(["<think>", "Two and", " tw"]) == ("Two and tw", "", 3)


@pytest.mark.parametrize(
    ("end", "opens"),
    [
        ("<|im_start|>assistant\n", False),
        ("<|im_start|>assistant\n<think>\n", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
    ],
)
def test_the_prompts_end_tells_whether_it_opened_a_block(end, opens):
    assert opens_reasoning(end, load_detector("qwen3")) == opens


def test_an_unknown_parser_stops_the_start():
    with pytest.raises(StartupError, match="deepseek-r1"):
        load_detector("qwen33")
