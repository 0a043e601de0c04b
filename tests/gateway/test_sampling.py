"""Every sampling option of the wire contract, held against what it allows, by tables and by search."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.errors import InvalidRequestError
from reasonserve.gateway.sampling import BOUNDS, num_outputs, parse_sampling
from reasonserve.replica.protocol import Grammar, Sampling

INTERVALS = {
    "temperature": (0, 2, "[]"),
    "top_p": (0, 1, "(]"),
    "min_p": (0, 1, "[]"),
    "frequency_penalty": (-2, 2, "[]"),
    "presence_penalty": (-2, 2, "[]"),
    "repetition_penalty": (0, 2, "(]"),
    "top_k": (1, 2**31 - 1, "[]"),
    "max_new_tokens": (1, 2**31 - 1, "[]"),
    "min_new_tokens": (0, 128, "[]"),
    "num_outputs": (1, 8, "[]"),
    "top_logprobs": (0, 20, "[]"),
}
"""The contract's intervals, written a second time: the proto's comments say the same."""
WHOLE = {"top_k", "max_new_tokens", "min_new_tokens", "num_outputs", "top_logprobs"}


def refused(**options):
    with pytest.raises(InvalidRequestError) as caught:
        parse_sampling(pb.SamplingOptions(**options))
    return caught.value


def test_every_optional_number_has_bounds():
    fields = pb.SamplingOptions.DESCRIPTOR.fields
    optional = {f.name for f in fields if f.containing_oneof and f.containing_oneof.name.startswith("_")}
    assert optional - {"seed"} == set(BOUNDS) == set(INTERVALS)


@given(st.sampled_from(sorted(INTERVALS)), st.data())
def test_a_number_is_taken_exactly_where_the_contract_says(name, data):
    low, high, ends = INTERVALS[name]
    if name in WHOLE:
        value = data.draw(st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(low - 2, min(high + 2, 2**31 - 1))))
    else:
        value = data.draw(st.one_of(st.floats(width=32), st.floats(low - 1, high + 1, width=32)))
    inside = low <= value <= high and not (ends[0] == "(" and value == low)
    options = pb.SamplingOptions(**{name: value})
    if inside:
        sampling = parse_sampling(options)
        assert getattr(sampling, name, num_outputs(options)) == value
    else:
        error = refused(**{name: value})
        assert error.field == f"sampling.{name}"
        assert ("nan" if math.isnan(value) else str(value)) in error.message


def test_everything_given_is_passed_on():
    options = pb.SamplingOptions(
        min_p=0.25,
        frequency_penalty=-1,
        presence_penalty=1,
        repetition_penalty=1.5,
        stop_token_ids=[4, 5],
        num_outputs=3,
        min_new_tokens=2,
        logit_bias={9: -1.5, 3: 2},
        top_logprobs=0,
        regex="a+",
    )
    assert parse_sampling(options) == Sampling(
        min_p=0.25,
        frequency_penalty=-1.0,
        presence_penalty=1.0,
        repetition_penalty=1.5,
        stop_token_ids=(4, 5),
        min_new_tokens=2,
        logit_bias=((3, 2.0), (9, -1.5)),
        top_logprobs=0,
        grammar=Grammar("regex", "a+"),
    )
    assert num_outputs(options) == 3


def test_nothing_given_is_the_default():
    assert parse_sampling(pb.SamplingOptions()) == Sampling()
    assert num_outputs(pb.SamplingOptions()) == 1


@pytest.mark.parametrize(
    ("options", "field", "told"),
    [
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "sampling.min_new_tokens", "at most that"),
        ({"stop_token_ids": [1] * 17}, "sampling.stop_token_ids", "at most 16"),
        ({"stop_token_ids": [1], "ignore_eos": True}, "sampling.stop_token_ids", "ignore_eos"),
        ({"logit_bias": dict.fromkeys(range(301), 1.0)}, "sampling.logit_bias", "at most 300"),
        ({"logit_bias": {7: 101.0}}, "sampling.logit_bias[7]", "[-100, 100]"),
        ({"logit_bias": {7: math.nan}}, "sampling.logit_bias[7]", "nan"),
        ({"json_schema": "{"}, "sampling.json_schema", "no JSON"),
        ({"json_schema": "[" * 60_000}, "sampling.json_schema", "no JSON"),
        ({"json_schema": "[1]"}, "sampling.json_schema", "no JSON object"),
        ({"json_schema": json.dumps({"a": "x" * 70_000})}, "sampling.json_schema", "at most 65536"),
        ({"regex": " "}, "sampling.regex", "empty"),
        ({"ebnf": "root ::= \0"}, "sampling.ebnf", "NUL"),
    ],
)
def test_what_cannot_be_honoured_is_named(options, field, told):
    error = refused(**options)
    assert error.field == field
    assert told in error.message
    assert len(error.message) < 300
