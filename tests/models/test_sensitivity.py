"""The search on the real small model: what it finds, it can prove."""

from __future__ import annotations

import math

import pytest

from reasonserve.bench.tasks import chaser
from reasonserve.cli.profile_calibrate import to_profile
from reasonserve.models.sensitivity import Sensitivity, calibrate_sensitivity
from reasonserve.models.traces import Probe

PROBES = [Probe("chaser", chaser.make("probe", index, 16).prompt) for index in range(4)]


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> Sensitivity:
    folder = request.config.rootpath / "tests" / "data" / "pointer-chaser"
    return calibrate_sensitivity(folder, PROBES, 170, 10, lambda *_: None)


def test_the_traces_are_the_models_own_answers(found: Sensitivity) -> None:
    assert found.generated_tokens == (163,) * 4  # 16 lines of ten words, and the last two with the end


def test_what_is_found_loses_less_on_probes_that_were_held_out_too(found: Sensitivity) -> None:
    by_name = {name: found.evidence[name] for name in found.evidence if "kl" in name}
    budgets = sorted({name.split("_kl_")[0] for name in by_name})
    assert len(budgets) == 2
    for suffix in ("", "_held_out"):
        uniform, best = (
            math.prod(by_name[f"{budget}_kl_{what}{suffix}"] for budget in budgets) for what in ("uniform", "found")
        )
        assert best < uniform
    assert found.evidence["evaluations"] <= 10


def test_the_profile_splits_by_the_shares_as_they_are(found: Sensitivity) -> None:
    profile = to_profile(found, model_name="pointer-chaser", model_fingerprint="0f")
    assert profile.kind == "sensitivity"
    assert profile.layer_weights() == pytest.approx(found.shares)
    assert math.fsum(found.shares) == pytest.approx(4)
    assert len(set(found.shares)) > 1
    assert profile.evidence == found.evidence
