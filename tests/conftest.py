"""Property tests without deadlines; lanes; stacks that modules share, which end with the last test that uses them."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import PurePosixPath

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# A test that is slow once because the machine was busy has found nothing.
settings.register_profile("untimed", parent=settings.default, deadline=None)
settings.load_profile("untimed")

Endings = dict[str, ExitStack]

_NO_STACKS = frozenset({"alloc", "bench", "control", "engine", "models", "repo"})
"""Folders whose tests start an engine or a controller at most. Those of the others start stacks, or belong to them."""

_ENDINGS = pytest.StashKey[Endings]()
_LAST_USES = pytest.StashKey[dict[str, str]]()


class _Lanes(LoadScopeScheduling):
    """Stacks take turns; files that start none run beside them."""

    def _split_scope(self, nodeid: str) -> str:
        path = PurePosixPath(nodeid.split("::")[0])
        return str(path) if path.parts[1] in _NO_STACKS else "stacks"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Deals tests out by lanes, whatever ``--dist`` says.

    Its ``loadgroup`` would do, but xdist 3.8 does not see the groups' marks under pytest 9.2.
    """
    return _Lanes(config, log)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Notes the last test that asks for each fixture."""
    uses = {name: item.nodeid for item in session.items for name in getattr(item, "fixturenames", ())}
    session.config.stash[_LAST_USES] = uses


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Ends what this test was the last to use."""
    endings, last_uses = item.config.stash.get(_ENDINGS, {}), item.config.stash[_LAST_USES]
    for name in [name for name in endings if last_uses[name] == item.nodeid]:
        endings.pop(name).close()


@pytest.fixture(scope="session")
def until_last_use(request: pytest.FixtureRequest) -> Callable[[str], ExitStack]:
    """Lends session fixtures a stack of callbacks, by the fixture's name, that is closed after its last use.

    No other fixture may have that name: its uses would count too.
    """
    endings: Endings = request.config.stash.setdefault(_ENDINGS, {})

    def lend(name: str) -> ExitStack:
        endings[name] = ExitStack()
        request.addfinalizer(endings[name].close)
        return endings[name]

    return lend
