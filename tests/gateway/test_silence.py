"""No error that reaches a client says where anything is, whatever raised it and whatever it quotes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonserve import errors
from reasonserve.gateway.errors import reported
from reasonserve.status import INTERNAL_MESSAGE, RULES, public_text, to_rpc_status

WORD = st.text("abcdefgh", min_size=1, max_size=6)
ADDRESS = st.tuples(*[st.integers(0, 255)] * 4).map(lambda parts: ".".join(map(str, parts)))
LEAK = st.one_of(
    st.lists(WORD, min_size=2, max_size=5).map(lambda parts: "/" + "/".join(parts)),
    st.tuples(WORD, st.integers(1, 999)).map(lambda at: f"{at[0]}.py:{at[1]}"),
    st.tuples(ADDRESS, st.integers(1, 65535)).map(lambda at: f"{at[0]}:{at[1]}"),
    st.just("[fe80::1]:9000"),
    st.integers(1 << 24, 1 << 60).map(hex),
    st.tuples(WORD, st.integers(1, 999)).map(lambda at: f'File "/x/{at[0]}", line {at[1]}, in f'),
)
# In every class's messages what comes after a leak stays, but for a traceback.
MESSAGES = st.tuples(LEAK, st.sampled_from(["The engine refuses it: {}.", "{}", "at {} and ({}), see {}."]))


class Context:
    def __init__(self):
        self.told = []

    def set_code(self, code):
        self.told.append(code.name)

    def set_details(self, details):
        self.told.append(details)

    def set_trailing_metadata(self, metadata):
        self.told += [value.decode("latin-1") for _, value in metadata]


def raised(kind, message):
    if kind is errors.BudgetExhaustedError:
        return kind(message, retry_after_s=1.0)
    return kind(message, field="kv.method") if issubclass(kind, errors.ReasonServeError) else kind(message)


@pytest.mark.parametrize("kind", [*RULES, RuntimeError, KeyError, OSError, AssertionError, UnicodeError])
@given(message=MESSAGES)
def test_nothing_private_is_told(kind, message):
    leak, around = message
    context = Context()
    with reported(context):
        raise raised(kind, around.replace("{}", leak))
    assert context.told[1:]
    assert not any(leak in text for text in context.told)


@given(before=WORD, after=st.text(max_size=40))
def test_a_traceback_ends_a_message(before, after):
    assert public_text(f"{before} Traceback (most recent call last):\n{after}") == before


@pytest.mark.parametrize(
    "message",
    [
        "sampling.top_p is 1.5; use a number in (0, 1].",
        "kv.method is 'a/b'; use one of full, rkv, wave/reasonalloc/rkv.",
        "POST /v1/chat/completions takes application/json.",
        "The request needs 4096 KV slots; the tenant may hold 1024. Retry in 2.5 s, or ask for less.",
    ],
)
def test_our_own_words_stay_as_they_are(message):
    assert public_text(message) == message
    assert to_rpc_status(errors.InvalidRequestError(message)).message == message


def test_what_nobody_foresaw_has_one_fixed_text():
    assert to_rpc_status(RuntimeError("a secret")).message == INTERNAL_MESSAGE
