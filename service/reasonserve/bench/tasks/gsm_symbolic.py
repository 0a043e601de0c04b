"""GSM-Symbolic (arXiv 2410.05229): GSM8K's problems with names and numbers drawn anew, as reasoning-gym makes them.

Questions come from templates and a seed, so none needs a download, and no model can have read them all.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module, metadata

from reasonserve.bench.tasks.gsm8k import INSTRUCTION
from reasonserve.bench.tasks.sample import Sample
from reasonserve.errors import InvalidRequestError

PACKAGE, RELEASE = "reasoning-gym", "0.1.25"
"""What makes the questions; another release may make others from the same seed."""
_SEED, _MOST = 5, 10_000


def questions() -> Callable[[int], Sample]:
    """Returns what makes the question of an index; ``gsm8k.grade`` grades it.

    Raises:
        InvalidRequestError: The package is missing, or of another release.
    """
    try:
        installed = metadata.version(PACKAGE)
        create_dataset = import_module("reasoning_gym").create_dataset
    except ImportError as error:
        raise InvalidRequestError(
            f"Task gsm_symbolic needs {PACKAGE}, and it cannot be imported ({error}): pip install {PACKAGE}=={RELEASE}."
        ) from error
    if installed != RELEASE:
        raise InvalidRequestError(
            f"{PACKAGE} {installed} is installed; questions are those of {RELEASE}: pip install {PACKAGE}=={RELEASE}."
        )
    dataset = create_dataset("gsm_symbolic", seed=_SEED, size=_MOST)

    def make(index: int) -> Sample:
        entry = dataset[index]
        return Sample(f"gsm_symbolic/test/{index}", entry["question"] + INSTRUCTION, str(entry["answer"]))

    return make
