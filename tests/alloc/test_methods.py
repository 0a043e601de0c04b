"""Names of methods."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonalloc.errors import MethodError
from reasonalloc.methods import HEAD_RULES, LAYER_RULES, NAMED_METHODS, PROFILE_PARTS, SCORERS, Triple, parse_method

TRIPLES = st.builds(
    Triple, st.sampled_from([*LAYER_RULES]), st.sampled_from([*HEAD_RULES]), st.sampled_from([*SCORERS])
)


@given(TRIPLES)
def test_every_triple_can_be_written(triple):
    assert parse_method(str(triple)) == triple
    reads = {"layers": triple.layer == "wave", "heads": triple.head == "profile"}
    reads["queries"] = triple.scorer == "triattention"
    assert triple.profile_parts == {part for part in PROFILE_PARTS if reads[part]}
    assert triple.needs_profile == any(reads.values())


@pytest.mark.parametrize(
    ("name", "triple"),
    {
        "r-kv": "uniform/uniform/rkv",
        "snapkv": "uniform/uniform/snapkv",
        "pyramid-rkv": "pyramid/uniform/rkv",
        "ada-rkv": "uniform/adakv/rkv",
        "g-kv": "uniform/uniform/gkv",
        "vase": "uniform/uniform/vase",
        "lava": "entropy/adakv/lava",
        "h2o": "uniform/uniform/h2o",
        "streaming": "uniform/uniform/streaming",
        "random-pinned": "uniform/uniform/random",
        "reasonalloc": "wave/reasonalloc/rkv",
        "reasonalloc-snapkv": "wave/reasonalloc/snapkv",
        "reasonalloc-gkv": "wave/reasonalloc/gkv",
        "reasonalloc-tri": "wave/reasonalloc/triattention",
        "layer-only": "wave/uniform/rkv",
        "head-only": "uniform/reasonalloc/rkv",
        "triattention": "uniform/uniform/triattention",
    }.items(),
)
def test_named_methods_are_triples(name, triple):
    assert str(NAMED_METHODS[name]) == triple
    assert parse_method(name) == parse_method(triple)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "method is ''; give one of reasonalloc, .* or a triple LAYER/HEAD/SCORER such as wave/reasonalloc/rkv"),
        ("reason-alloc", "method is 'reason-alloc'; give one of"),
        ("wave/reasonalloc", "method is 'wave/reasonalloc'; give one of"),
        ("wave/reasonalloc/rkv/x", "give one of"),
        ("ripple/uniform/rkv", "layer rule is 'ripple'; give one of uniform, pyramid, wave, entropy"),
        ("wave/heads/rkv", "head rule is 'heads'; give one of uniform, adakv, reasonalloc, one-pass"),
        ("wave/uniform/r-kv", "scorer is 'r-kv'; give one of rkv, rkv-released, snapkv"),
        ("Wave/uniform/rkv", "layer rule is 'Wave'"),
    ],
)
def test_unknown_names_are_refused_with_what_is_allowed(name, told):
    with pytest.raises(MethodError, match=told):
        parse_method(name)


@given(st.text(max_size=40))
def test_any_other_text_is_refused(text):
    if text in NAMED_METHODS:
        return
    with pytest.raises(MethodError) as caught:
        parse_method(text)
    assert len(str(caught.value)) < 500
