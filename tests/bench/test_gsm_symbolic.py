"""GSM-Symbolic's task on a stand-in for the package that makes its questions, which is optional and not installed."""

from __future__ import annotations

import sys
from importlib import metadata, util
from types import ModuleType

import pytest

from reasonserve.bench.accuracy.tasks import find_task
from reasonserve.bench.tasks import gsm_symbolic
from reasonserve.errors import InvalidRequestError

asked: list[tuple[str, int]] = []


class Dataset:
    """As reasoning-gym's: entries by index, of one seed."""

    def __init__(self, name: str, *, seed: int, size: int) -> None:
        asked.append((name, seed))
        self.size = size

    def __getitem__(self, index: int) -> dict[str, str]:
        return {"question": f"How much is {index} and {index}?", "answer": str(2 * index)}


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> str:
    """The stand-in, of the right release."""
    module = ModuleType("reasoning_gym")
    module.create_dataset = Dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reasoning_gym", module)
    monkeypatch.setattr(metadata, "version", lambda _: gsm_symbolic.RELEASE)
    return gsm_symbolic.RELEASE


def test_questions_go_through_the_chat_template_and_are_graded_by_number(package: str) -> None:
    task = find_task("gsm_symbolic", None, 512)
    sample = task.make(21)
    assert (sample.name, sample.answer, task.chat, task.limit(sample)) == ("gsm_symbolic/test/21", "42", True, 512)
    assert sample.prompt.startswith("How much is 21 and 21?\n")
    assert "\\boxed{}" in sample.prompt
    assert task.grade(sample, "So it is \\boxed{42}.").correct
    assert not task.grade(sample, "So it is \\boxed{41}.").correct
    assert asked[-1] == ("gsm_symbolic", 5)


def test_another_release_is_refused_with_the_remedy(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "9.9")
    with pytest.raises(InvalidRequestError, match=f"9.9 is installed; .* pip install reasoning-gym=={package}"):
        find_task("gsm_symbolic", None, 512)


def test_a_missing_package_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    if util.find_spec("reasoning_gym"):
        monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(InvalidRequestError, match=f"pip install reasoning-gym=={gsm_symbolic.RELEASE}"):
        find_task("gsm_symbolic", None, 512)
