"""What SGLang is told of sampling, and what is made of its answers."""

import pytest

from reasonserve.errors import InvalidRequestError, UnavailableError
from reasonserve.kv import KvRequest
from reasonserve.replica.protocol import EngineChunk, EngineRequest, Grammar, Sampling
from reasonserve.replica.translate import LEAST_LOGPROB, engine_chunk, sampling_params

EMPTY = EngineChunk(text="", token_ids=())


def request(**sampling):
    kv = KvRequest(method="full", budget_tokens=0)
    return EngineRequest(request_id="r", input_ids=(1,), sampling=Sampling(**sampling), kv=kv)


def output(**meta):
    figures = {"finish_reason": None, "prompt_tokens": 3, "cached_tokens": 1, "completion_tokens": 2}
    return {"text": "ab", "output_ids": [7, 8], "meta_info": figures | meta}


def chunk(asked, **meta):
    return engine_chunk(output(**meta), EMPTY, asked, lambda token_id: f"<{token_id}>")


def test_sglang_takes_what_it_is_told():
    sglang = pytest.importorskip("sglang.srt.sampling.sampling_params", reason="SGLang is not installed")
    told = sampling_params(
        request(
            temperature=0.5, top_p=0.9, top_k=7, min_p=0.1, frequency_penalty=1.0, presence_penalty=-1.0,
            repetition_penalty=1.1, max_new_tokens=9, min_new_tokens=2, stop=("x",), stop_token_ids=(5,),
            logit_bias=((3, -1.5),), seed=4, ignore_eos=True, grammar=Grammar("regex", "a+"),
        )
    )  # fmt: skip
    taken = sglang.SamplingParams(**told)
    taken.verify(10)
    assert (taken.temperature, taken.top_p, taken.top_k, taken.min_p) == (0.5, 0.9, 7, 0.1)
    assert (taken.frequency_penalty, taken.presence_penalty, taken.repetition_penalty) == (1.0, -1.0, 1.1)
    assert (taken.max_new_tokens, taken.min_new_tokens, taken.ignore_eos) == (9, 2, True)
    assert (taken.stop_strs, taken.stop_token_ids, taken.logit_bias) == (["x"], {5}, {"3": -1.5})
    assert (taken.sampling_seed, taken.regex, taken.json_schema, taken.ebnf) == (4, "a+", None, None)


def test_requests_without_a_seed_get_different_ones():
    assert sampling_params(request())["sampling_seed"] != sampling_params(request())["sampling_seed"]


def test_logprobs_are_named_and_finite():
    told = chunk(
        request(top_logprobs=1),
        output_token_logprobs=[(-0.5, 7, None), (float("-inf"), 8, None)],
        output_top_logprobs=[[(-0.5, 7, None)], [(-0.1, 9, None)]],
    )
    assert [place.token for place in told.logprobs] == [(7, "<7>", -0.5), (8, "<8>", LEAST_LOGPROB)]
    assert [place.top for place in told.logprobs] == [((7, "<7>", -0.5),), ((9, "<9>", -0.1),)]


@pytest.mark.parametrize(("matched", "told"), [("END", "END"), (5, "5"), (2, ""), (None, "")])
def test_only_what_the_client_asked_for_is_a_match(matched, told):
    ended = chunk(request(stop=("END",), stop_token_ids=(5,)), finish_reason={"type": "stop", "matched": matched})
    assert (ended.finish_reason, ended.matched_stop) == ("stop", told)


def test_a_grammar_that_does_not_compile_is_the_clients_without_the_compilers_whereabouts():
    message = "Failed to compile ebnf grammar: [02:54:30] /project/cpp/grammar_parser.cc:820: EBNF parser error at 1."
    with pytest.raises(InvalidRequestError, match="EBNF parser error at 1") as caught:
        chunk(
            request(grammar=Grammar("ebnf", "root ::= (")),
            finish_reason={"type": "abort", "status_code": 400, "message": message},
        )
    assert caught.value.field == "sampling.ebnf"
    assert "/" not in caught.value.message
    assert "02:54" not in caught.value.message


def test_an_abort_that_is_nobodys_fault_may_be_retried():
    with pytest.raises(UnavailableError):
        chunk(request(), finish_reason={"type": "abort", "status_code": 503, "message": "no room"})
