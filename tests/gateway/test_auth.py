"""Whose key it is: caching, revocation, and a controller that is away."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonserve.errors import NotFoundError, UnauthenticatedError, UnavailableError
from reasonserve.gateway.auth import Authenticator, Owner, bearer_key


class Controller:
    """Knows one key and can be away."""

    def __init__(self):
        self.keys = {"good": "acme"}
        self.ends = {}
        self.away = False
        self.asked = 0
        self.now = 0.0
        self.gate = asyncio.Event()
        self.gate.set()

    async def resolve(self, key):
        self.asked += 1
        await self.gate.wait()
        if self.away:
            raise UnavailableError("away")
        if key not in self.keys:
            raise NotFoundError("no such key")
        ttl_s = self.ends.get(key, math.inf) - self.now
        if ttl_s <= 0:
            raise NotFoundError("expired")
        return Owner(self.keys[key], ttl_s)


@pytest.fixture
def controller():
    return Controller()


@pytest.fixture
def auth(controller):
    return Authenticator(controller.resolve, key_cache_s=5.0, clock=lambda: controller.now)


@pytest.mark.parametrize(
    "metadata", [[], [("authorization", "good")], [("authorization", "Bearer ")], [("authorization", b"Bearer good")]]
)
def test_a_call_without_a_bearer_key_is_refused(metadata):
    with pytest.raises(UnauthenticatedError, match="authorization: Bearer KEY"):
        bearer_key(metadata)


async def test_a_key_is_known_while_its_verdict_is_trusted(auth, controller):
    assert auth.verified("good") is None
    await auth.tenant_of("good")
    assert auth.verified("good") == "acme"
    with pytest.raises(UnauthenticatedError):
        await auth.tenant_of("bad")
    assert auth.verified("bad") is None
    controller.now = 5.0
    assert auth.verified("good") is None
    assert controller.asked == 2


def test_the_scheme_is_not_case_sensitive():
    assert bearer_key([("x", "y"), ("authorization", "bearer good")]) == "good"


async def test_a_verified_key_is_asked_for_once_until_it_expires(auth, controller):
    for _ in range(3):
        assert await auth.tenant_of("good") == "acme"
    assert controller.asked == 1
    controller.now = 5.0
    await auth.tenant_of("good")
    assert controller.asked == 2


async def test_a_revoked_key_stops_working_when_its_cache_expires(auth, controller):
    await auth.tenant_of("good")
    del controller.keys["good"]
    controller.now = 5.0
    with pytest.raises(UnauthenticatedError):
        await auth.tenant_of("good")
    controller.away = True  # and is not honoured as stale either
    controller.now = 7.0
    with pytest.raises(UnavailableError):
        await auth.tenant_of("good")


@given(end=st.integers(1, 700), times=st.lists(st.tuples(st.integers(0, 700), st.booleans())).map(sorted))
async def test_no_key_outlives_its_end_whether_the_controller_is_there_or_away(end, times):
    controller = Controller()
    controller.ends["good"] = end
    auth = Authenticator(controller.resolve, key_cache_s=5.0, clock=lambda: controller.now)
    await auth.tenant_of("good")
    for controller.now, controller.away in times:
        try:
            assert await auth.tenant_of("good") == "acme"
        except UnauthenticatedError:
            assert controller.now >= end
        except UnavailableError:
            assert controller.away
        else:
            assert controller.now < end


async def test_a_key_that_expired_is_refused_for_good_when_the_controller_cannot_be_asked(auth, controller):
    controller.ends["good"] = 3.0
    await auth.tenant_of("good")
    controller.away = True
    controller.now = 2.9
    assert await auth.tenant_of("good") == "acme"
    for controller.now in (3.0, 4.0, 599.0, 2000.0):
        with pytest.raises(UnauthenticatedError, match="unknown, revoked or expired"):
            await auth.tenant_of("good")


async def test_the_rest_of_a_key_is_counted_from_the_question(controller):
    async def slow(key):
        owner = await controller.resolve(key)
        controller.now += 4.0
        return owner

    auth = Authenticator(slow, key_cache_s=5.0, clock=lambda: controller.now)
    controller.ends["good"] = 3.0
    assert await auth.tenant_of("good") == "acme"
    with pytest.raises(UnauthenticatedError):
        await auth.tenant_of("good")


async def test_a_refusal_is_remembered_for_a_second_at_most(auth, controller):
    for _ in range(2):
        with pytest.raises(UnauthenticatedError):
            await auth.tenant_of("new")
    assert controller.asked == 1
    controller.keys["new"] = "other"
    controller.now = 1.0
    assert await auth.tenant_of("new") == "other"


async def test_known_keys_work_for_ten_minutes_without_the_controller(auth, controller):
    await auth.tenant_of("good")
    controller.away = True
    controller.now = 599.0
    assert await auth.tenant_of("good") == "acme"
    with pytest.raises(UnavailableError):
        await auth.tenant_of("unknown")
    controller.now = 600.0
    with pytest.raises(UnavailableError):
        await auth.tenant_of("good")


async def test_callers_with_the_same_key_ask_once_and_a_leaver_does_not_spoil_it(auth, controller):
    controller.gate.clear()
    callers = [asyncio.create_task(auth.tenant_of("good")) for _ in range(3)]
    await asyncio.sleep(0)
    callers[0].cancel()
    await asyncio.sleep(0)
    controller.gate.set()
    assert await asyncio.gather(*callers[1:]) == ["acme", "acme"]
    assert controller.asked == 1


async def test_keys_are_not_kept(auth):
    await auth.tenant_of("good")
    with pytest.raises(UnauthenticatedError):
        await auth.tenant_of("other-secret")
    assert "good" not in repr(vars(auth))
    assert "other-secret" not in repr(vars(auth))


async def test_an_answer_is_as_old_as_its_question(controller):
    async def slow(key):
        owner = await controller.resolve(key)
        controller.now += 4.0  # revoked now, after the controller looked and before its answer came
        return owner

    auth = Authenticator(slow, key_cache_s=5.0, clock=lambda: controller.now)
    assert await auth.tenant_of("good") == "acme"
    del controller.keys["good"]
    controller.now = 5.0
    with pytest.raises(UnauthenticatedError):
        await auth.tenant_of("good")


async def test_each_check_is_told(controller):
    told = []
    auth = Authenticator(controller.resolve, key_cache_s=5.0, checked=told.append, clock=lambda: controller.now)
    await auth.tenant_of("good")
    await auth.tenant_of("good")
    with pytest.raises(UnauthenticatedError):
        await auth.tenant_of("wrong")
    controller.now, controller.away = 6.0, True
    await asyncio.gather(auth.tenant_of("good"), auth.tenant_of("good"))
    assert told == ["miss", "hit", "refused", "stale", "stale"]
