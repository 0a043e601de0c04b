"""Keys: their form, their hashes, and the memory of verified ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonserve.controller.keys import VerifiedKeys, make_key, parse_key, verify_secret


def test_a_made_key_parses_and_verifies():
    made = make_key()
    parsed = parse_key(made.key)
    assert parsed is not None
    assert parsed.key_id == made.key_id
    assert made.secret_hash.startswith("$argon2id$")
    assert parsed.secret not in made.secret_hash
    assert verify_secret(parsed.secret, made.secret_hash)
    assert not verify_secret(parsed.secret[::-1], made.secret_hash)


def test_keys_differ():
    first, second = make_key(), make_key()
    assert first.key_id != second.key_id
    assert first.key != second.key


@given(st.text() | st.from_regex(r"rsk_[0-9a-f]{11,13}_[\w-]{42,44}", fullmatch=True))
def test_only_the_exact_form_parses(text):
    parsed = parse_key(text)
    assert parsed is None or text == f"rsk_{parsed.key_id}_{parsed.secret}"
    assert parsed is None or (len(parsed.key_id), len(parsed.secret)) == (12, 43)


@pytest.mark.parametrize("text", ["", "rsk_", "rsk_0123456789ab_" + "a" * 43 + "\n", "\udcff"])
def test_malformed_keys_do_not_parse(text):
    assert parse_key(text) is None


def test_the_least_recently_used_key_is_forgotten():
    verified = VerifiedKeys(max_keys=2)
    verified.add("one", "1")
    verified.add("two", "2")
    assert verified.key_id("one") == "1"
    verified.add("three", "3")
    assert (verified.key_id("two"), verified.key_id("one"), verified.key_id("three")) == (None, "1", "3")
    assert len(verified) == 2
