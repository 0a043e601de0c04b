"""Layer profiles."""

import contextlib
import dataclasses
import hashlib
import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonalloc.centres import QueryCentres
from reasonalloc.errors import ProfileError
from reasonalloc.profile import PROFILE_RHOS, LayerProfile

DEMAND = (0.5, 0.125, 0.25)
HEAD_SHARES = ((1.5, 0.5), (1.0, 1.0), (0.75, 1.25))
QUERIES = QueryCentres.pack(3, 4, (1.0, 0.5), [number / 8 for number in range(72)])


def make_profile(**changes):
    values = {
        "model_fingerprint": "sha256:0f",
        "model_name": "tiny",
        "num_layers": 3,
        "num_kv_heads": 2,
        "demand": DEMAND,
        "demand_by_rho": dict.fromkeys(PROFILE_RHOS, DEMAND),
        "probes_digest": "sha256:1e",
        "created": "2026-01-31",
        "tool_version": "0.1.0",
    }
    return LayerProfile(**(values | changes))


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40))
@settings(deadline=None, max_examples=100)
def test_survives_text_and_keeps_its_id(demand):
    demand = tuple(demand)
    profile = make_profile(num_layers=len(demand), demand=demand, demand_by_rho=dict.fromkeys(PROFILE_RHOS, demand))
    again = LayerProfile.from_json(profile.to_json())
    assert again == profile
    assert again.profile_id == profile.profile_id
    assert hash(again) == hash(profile)


def test_text_is_canonical_and_the_id_is_its_hash():
    text = make_profile().to_json()
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=2) + "\n"
    assert make_profile().profile_id == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert make_profile(gamma=1).profile_id == make_profile(gamma=1.0).profile_id
    assert make_profile(created="2026-02-01").profile_id != make_profile().profile_id


def test_crosses_a_process_boundary():
    assert pickle.loads(pickle.dumps(make_profile())) == make_profile()


def test_weights_are_smoothed_to_mean_one():
    weights = make_profile(num_layers=2, demand=(4, 1), demand_by_rho=dict.fromkeys(PROFILE_RHOS, (4, 1)))
    assert weights.layer_weights() == pytest.approx((4 / 3, 2 / 3))
    assert make_profile(gamma=0).layer_weights() == (1, 1, 1)


def test_a_sensitivity_profile_needs_no_attention():
    shares = {"kind": "sensitivity", "gamma": 1, "rho": 0, "demand_by_rho": {}, "evidence": {"kl_found": 0.25}}
    profile = make_profile(demand=(1.5, 0.5, 1.0), **shares)
    assert profile.layer_weights() == pytest.approx((1.5, 0.5, 1.0))
    assert LayerProfile.from_json(profile.to_json()) == profile
    for wrong in ({"rho": 0.93}, {"demand_by_rho": dict.fromkeys(PROFILE_RHOS, DEMAND)}):
        with pytest.raises(ProfileError, match="leave both so"):
            make_profile(demand=DEMAND, **(shares | wrong))


def test_fits_only_its_model():
    profile = make_profile()
    profile.check_fits(3, 2, "sha256:0f")
    for other in [(4, 2, "sha256:0f"), (3, 1, "sha256:0f"), (3, 2, "sha256:ff")]:
        with pytest.raises(ProfileError, match=r"but the model has .*; activate a profile"):
            profile.check_fits(*other)


@pytest.mark.parametrize("key", ["format_version", *(field.name for field in dataclasses.fields(LayerProfile))])
def test_text_is_closed(key):
    document = json.loads(make_profile(head_shares=HEAD_SHARES, queries=QUERIES).to_json())
    with pytest.raises(ProfileError, match=f"{key}x"):
        LayerProfile.from_json(json.dumps(document | {f"{key}x": 1}))
    del document[key]
    with pytest.raises(ProfileError, match=key):
        LayerProfile.from_json(json.dumps(document))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("num_layers", 4, "one for each of 4"),
        ("num_layers", True, "give an integer"),
        ("num_layers", "3", "give an integer"),
        ("num_layers", 0, "at least 1"),
        ("num_kv_heads", -1, "at least 1"),
        ("model_name", 7, "give a string"),
        ("model_fingerprint", "", "is empty"),
        ("created", "yesterday", "give a date"),
        ("format_version", 1, "format_version 1; give 2 or 3"),
        ("format_version", 3.0, "format_version 3.0"),
        ("format_version", 3, "lacks keys .'head_shares', 'queries'"),
        ("kind", "guess", "give one of wave, sensitivity"),
        ("kind", "sensitivity", "no demand_by_rho"),
        ("evidence", {"kl": "low"}, r"evidence\.kl is 'low'"),
        ("evidence", {"kl": float("inf")}, "finite"),
        ("evidence", [1.0], "object of numbers"),
        ("demand", [0.5, 0.125], "is not demand_by_rho"),
        ("demand", [0.5, 0.125, None], r"demand\[2\] is None"),
        ("demand", "abc", "give a list"),
        ("demand", [10**400, 1, 1], "too large"),
        ("demand_by_rho", {"0.93": list(DEMAND)}, "with the keys"),
        ("demand_by_rho", {repr(rho): [0.5, 0.0, 0.25] for rho in PROFILE_RHOS}, "above 0"),
        ("demand_by_rho", {repr(rho): [0.5, float("nan"), 0.25] for rho in PROFILE_RHOS}, "above 0"),
        ("rho", 0.94, "rho as one of them"),
        ("gamma", 1.5, "give 0 to 1"),
        ("floor", 1.5, "floor"),
        ("ceiling", 0.5, "ceiling"),
    ],
)
def test_values_out_of_range_are_refused(key, value, words):
    document = json.loads(make_profile().to_json()) | {key: value}
    with pytest.raises(ProfileError, match=words):
        LayerProfile.from_json(json.dumps(document))


def test_heads_and_queries_survive_text_and_are_parts():
    profile = make_profile(head_shares=HEAD_SHARES, queries=QUERIES)
    assert profile.parts == {"layers", "heads", "queries"}
    assert LayerProfile.from_json(profile.to_json()) == profile
    assert make_profile().parts == {"layers"}
    assert len({each.profile_id for each in (profile, make_profile(), make_profile(queries=QUERIES))}) == 3


def test_a_profile_of_layers_alone_keeps_the_text_of_version_2():
    document = json.loads(make_profile().to_json())
    assert document["format_version"] == 2
    assert not {"head_shares", "queries"} & document.keys()
    newer = LayerProfile.from_json(json.dumps(document | {"format_version": 3, "head_shares": [], "queries": None}))
    assert newer.profile_id == make_profile().profile_id
    with pytest.raises(ProfileError, match=r"unknown keys \['head_shares'\]"):
        LayerProfile.from_json(json.dumps(document | {"head_shares": []}))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("head_shares", [[1.0, 1.0]], "2 for each of 3 layers"),
        ("head_shares", [[1.0], [1.0], [1.0]], "2 for each of 3 layers"),
        ("head_shares", [[1.0, 0.0]] * 3, "above 0"),
        ("head_shares", [1.0, 1.0, 1.0], r"head_shares\[0\] is 1.0; give a list"),
        ("head_shares", 1.0, "list of lists"),
        ("queries", [], "no object with the keys num_layers, num_heads"),
        ("queries", {"num_layers": 3}, "no object with the keys"),
        ("queries", {"num_layers": 2}, "2 layers of 4 heads; give 3 layers"),
        ("queries", {"num_heads": 3}, "a multiple of 2 heads"),
        ("queries", {"num_heads": 0}, "at least one of each"),
        ("queries", {"num_heads": "4"}, r"queries\.num_heads is '4'"),
        ("queries", {"frequencies": [1.0]}, "holds 144 bytes; give 72"),
        ("queries", {"frequencies": [1.0, float("nan")]}, "give finite angles"),
        ("queries", {"packed": "?"}, "not Base64"),
        ("queries", {"packed": "AHwA" * 48}, "not finite"),
    ],
)
def test_heads_and_queries_that_do_not_fit_are_refused(key, value, words):
    document = json.loads(make_profile(head_shares=HEAD_SHARES, queries=QUERIES).to_json())
    if isinstance(value, dict) and len(value) == 1 and words != "no object with the keys":
        sizes = {"num_layers": 3, "num_heads": 4, "frequencies": [1.0, 0.5]} | value
        count = sizes["num_layers"] * 4 * 3 * 2 if "num_layers" in value else 72
        count = 54 if value == {"num_heads": 3} else count
        value = {"packed": QueryCentres.pack(1, 1, [1.0] * (count // 3), [0.5] * count).packed} | sizes
    with pytest.raises(ProfileError, match=words):
        LayerProfile.from_json(json.dumps(document | {key: value}))


def test_queries_beyond_a_float16_are_refused():
    with pytest.raises(ProfileError, match="too long for a float16"):
        QueryCentres.pack(1, 1, [1.0], [1.0, 1e6, 0.0])


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000])
def test_text_that_is_no_profile_is_refused(text):
    with pytest.raises(ProfileError, match="give"):
        LayerProfile.from_json(text)


def test_a_repeated_key_is_refused():
    text = make_profile().to_json().replace('"gamma": 0.5,', '"gamma": 0.5, "gamma": 1.0,')
    with pytest.raises(ProfileError, match="repeats the keys"):
        LayerProfile.from_json(text)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=4), st.data())
@settings(deadline=None, max_examples=200)
def test_no_value_gets_past_the_reader(value, data):
    """A replaced value is read, or refused with a ProfileError; nothing else escapes."""
    document = json.loads(make_profile(head_shares=HEAD_SHARES, queries=QUERIES).to_json())
    document[data.draw(st.sampled_from(sorted(document)))] = value
    with contextlib.suppress(ProfileError):
        LayerProfile.from_json(json.dumps(document)).layer_weights()
