"""The map between exceptions and gRPC status: total, lossless for our errors, silent about others."""

import asyncio
import math
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from reasonserve import errors, status


class _Failure(grpc.RpcError):
    """A failed call as a client sees it."""

    def __init__(self, code, details, metadata=()):
        self._answer = (code, details, metadata)

    def code(self):
        return self._answer[0]

    def details(self):
        return self._answer[1]

    def trailing_metadata(self):
        return self._answer[2]


def _tree(root: type[errors.ReasonServeError]) -> Iterator[type[errors.ReasonServeError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child)


def _make(cls, message="Given 3; allowed 1 to 2; give less.", field="kv.budget_tokens"):
    extra = {"retry_after_s": 1.5} if cls is errors.BudgetExhaustedError else {}
    return cls(message, field=field, **extra)


def _over_the_wire(error: BaseException) -> errors.ReasonServeError:
    packed = status.to_rpc_status(error)
    return status.from_rpc_error(_Failure(status.grpc_code(error), packed.message, status.trailing_metadata(error)))


TRAVELLING = [cls for cls, rule in status.RULES.items() if rule]


def test_every_class_of_the_tree_has_its_own_rule():
    assert set(_tree(errors.ReasonServeError)) == set(status.RULES)


def test_codes_and_reasons_are_those_the_tree_documents():
    documented = {
        words[0]: words[-1] if "RetryInfo" not in words else words[-3]
        for words in (line.split("── ")[1].split() for line in (errors.__doc__ or "").splitlines() if "── " in line)
    }
    mapped = {cls.__name__: rule.code.name for cls, rule in status.RULES.items() if rule}
    assert mapped == {name: code for name, code in documented.items() if name != "StartupError"}
    assert len({rule.reason for rule in status.RULES.values() if rule}) == len(TRAVELLING)


@pytest.mark.parametrize("cls", TRAVELLING, ids=lambda cls: cls.__name__)
def test_our_errors_survive_the_wire(cls):
    error = _make(cls)
    rebuilt = _over_the_wire(error)
    assert type(rebuilt) is cls
    assert rebuilt.__dict__ == error.__dict__


@given(st.text(max_size=200).filter(lambda text: status.public_text(text) == text), st.text(max_size=60))
def test_any_message_and_field_survive(message, field):
    rebuilt = _over_the_wire(errors.PreconditionError(message, field=field))
    assert (rebuilt.message, rebuilt.field) == (message, field)


def test_details_name_the_field_and_the_delay():
    packed = status.to_rpc_status(_make(errors.InvalidRequestError))
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert packed.details[0].Unpack(info)
    assert packed.details[1].Unpack(bad_request)
    assert (info.domain, info.reason, info.metadata["field"]) == ("reasonserve", "INVALID_REQUEST", "kv.budget_tokens")
    assert bad_request.field_violations[0].field == "kv.budget_tokens"
    retry = error_details_pb2.RetryInfo()
    assert status.to_rpc_status(_make(errors.BudgetExhaustedError)).details[1].Unpack(retry)
    assert retry.retry_delay.ToNanoseconds() == 1_500_000_000


@pytest.mark.parametrize(
    ("given_s", "sent_s"), [(-1.0, 0.0), (0.0, 0.0), (math.nan, 0.0), (math.inf, 3600.0), (0.25, 0.25)]
)
def test_every_delay_can_be_sent(given_s, sent_s):
    rebuilt = _over_the_wire(errors.BudgetExhaustedError("Full.", retry_after_s=given_s))
    assert isinstance(rebuilt, errors.BudgetExhaustedError)
    assert rebuilt.retry_after_s == sent_s


@pytest.mark.parametrize(
    "error",
    [
        ValueError("/etc/secret at 10.0.0.1"),
        errors.StartupError("/etc/secret at 10.0.0.1"),
        errors.ReasonServeError("/etc/secret at 10.0.0.1"),
        KeyboardInterrupt("/etc/secret at 10.0.0.1"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_exceptions_say_nothing(error):
    packed = status.to_rpc_status(error)
    assert status.grpc_code(error) is grpc.StatusCode.INTERNAL
    assert packed == status_pb2.Status(code=13, message=status.INTERNAL_MESSAGE)


def test_a_cancelled_task_is_cancelled():
    assert status.grpc_code(asyncio.CancelledError()) is grpc.StatusCode.CANCELLED
    assert status.to_rpc_status(asyncio.CancelledError()).code == 1


def test_a_subclass_travels_as_its_parent():
    class Narrower(errors.NotFoundError):
        pass

    assert type(_over_the_wire(Narrower("No such tenant."))) is errors.NotFoundError


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
@pytest.mark.parametrize("metadata", [None, ((status.DETAILS_KEY, b"\xff\xff"),)], ids=["none", "broken"])
def test_a_foreign_failure_of_any_code_is_mapped(code, metadata):
    rebuilt = status.from_rpc_error(_Failure(code, "connect to ipv4:10.0.0.1:9 failed", metadata))
    assert isinstance(rebuilt, errors.ReasonServeError)
    assert not isinstance(rebuilt, errors.BudgetExhaustedError)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED"])
def test_an_unreachable_server_is_unavailable_and_unnamed(code):
    rebuilt = status.from_rpc_error(_Failure(grpc.StatusCode[code], "connect to ipv4:10.0.0.1:9 failed"))
    assert type(rebuilt) is errors.UnavailableError
    assert "10.0.0.1" not in rebuilt.message
