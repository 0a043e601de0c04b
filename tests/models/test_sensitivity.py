"""The search on the real small model: what it finds, it can prove."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from reasonalloc.profile import LayerProfile
from reasonserve.bench.tasks import chaser
from reasonserve.cli.profile_calibrate import to_profile
from reasonserve.errors import StartupError
from reasonserve.models import sensitivity
from reasonserve.models.fingerprint import fingerprint
from reasonserve.models.heads import measure_heads
from reasonserve.models.judge import Judge, log_loss
from reasonserve.models.profiles import shipped_profile
from reasonserve.models.sensitivity import METHOD, Sensitivity, calibrate_sensitivity
from reasonserve.models.simulate import Rounds
from reasonserve.models.traces import Probe, Trace, probes_digest, read_probes

PROBES = [Probe("chaser", chaser.make("probe", index, 16).prompt) for index in range(4)]


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> Sensitivity:
    folder = request.config.rootpath / "tests" / "data" / "pointer-chaser"
    return calibrate_sensitivity(folder, PROBES, 170, 10, lambda *_: None)


def test_the_traces_are_the_models_own_answers(found: Sensitivity) -> None:
    assert found.generated_tokens == (163,) * 4  # 16 lines of ten words, and the last two with the end


def test_what_is_found_loses_less_on_probes_that_were_held_out_too(found: Sensitivity) -> None:
    by_name = {name: found.evidence[name] for name in found.evidence if "kl" in name and "heads" not in name}
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


def test_heads_are_asked_one_by_one_and_their_shares_are_proved(found: Sensitivity) -> None:
    """Each head's rise is written down; shares other than equal ones lost less on probes that were held out."""
    rises = [found.evidence[f"head_{layer}_{head}_rise"] for layer in range(4) for head in range(2)]
    assert len({round(rise, 3) for rise in rises}) > 4
    assert [math.fsum(row) for row in found.head_shares] == pytest.approx([2.0] * 4, abs=1e-4)
    budgets = {name.split("_kl_")[0] for name in found.evidence if "_kl_heads_" in name}
    equal, best = (
        log_loss([found.evidence[f"{budget}_kl_heads_{what}_held_out"] for budget in budgets])
        for what in ("equal", "found")
    )
    assert (best < equal) == any(len(set(row)) > 1 for row in found.head_shares)


def test_the_profile_holds_heads_and_queries(found: Sensitivity) -> None:
    profile = to_profile(found, model_name="pointer-chaser", model_fingerprint="0f")
    assert profile.parts == {"layers", "heads", "queries"}
    assert profile.head_shares == found.head_shares
    assert LayerProfile.from_json(profile.to_json()) == profile


def test_too_many_heads_and_single_ones_are_not_asked() -> None:
    nobody = cast(Judge, None)
    for layers, heads in ((4, 1), (30, 3)):
        asked = measure_heads(nobody, nobody, [1.0] * layers, heads, METHOD, [], 60, lambda *_: None)
        assert asked is None


@pytest.mark.parametrize("kind", ["wave", "sensitivity"])
def test_the_shipped_profiles_rest_on_the_probes_of_the_test_data(request: pytest.FixtureRequest, kind: str) -> None:
    data = request.config.rootpath / "tests" / "data"
    text = shipped_profile(fingerprint(data / "pointer-chaser"), kind)
    assert text is not None
    profile = LayerProfile.from_json(text)
    assert profile.probes_digest == probes_digest(read_probes((data / "probes.txt").read_text()))
    assert "queries" in profile.parts
    assert text == profile.to_json()


def test_a_search_under_triattention_finds_other_shares(request: pytest.FixtureRequest, found: Sensitivity) -> None:
    folder = request.config.rootpath / "tests" / "data" / "pointer-chaser"
    method = replace(METHOD, scorer="triattention")
    other = calibrate_sensitivity(folder, PROBES, 170, 10, lambda *_: None, method)
    assert other.rises != found.rises
    assert {"under_rkv", "under_triattention"} & other.evidence.keys() == {"under_triattention"}
    assert other.evidence["evaluations"] <= 10


@pytest.mark.parametrize(
    ("loses", "budgets"),
    [(6.0, [64, 96]), (2.0, [48, 64]), (0.0, [32, 48])],
    ids=["enough", "too little", "nothing"],
)
def test_budgets_shrink_until_the_model_loses_enough(
    monkeypatch: pytest.MonkeyPatch, loses: float, budgets: list[int]
) -> None:
    """A model that loses ``loses`` nats over its budget's tokens, which are 64 and 96 for 200 tokens at first."""

    class Losing:
        def __init__(self, _model: object, traces: list[Trace], rounds: list[Rounds], _method: object) -> None:
            assert len(traces) == 3
            self.rounds = rounds

        def divergences_of_shares(self, shares: list[float]) -> list[float]:
            assert shares == [1.0, 1.0]
            return [loses / rounds.budget_tokens for rounds in self.rounds]

    monkeypatch.setattr(sensitivity, "Judge", Losing)
    model = SimpleNamespace(config=SimpleNamespace(num_hidden_layers=2))
    traces = [Trace(tuple(range(200)), 20)] * 4
    _, rounds = sensitivity.hard_enough(model, traces, 3, METHOD, None)
    assert [these.budget_tokens for these in rounds] == budgets


def test_what_is_too_little_to_tell_decides_nothing() -> None:
    assert log_loss([0.4, 1e-9]) == log_loss([0.4, 0.009]) == pytest.approx((math.log(0.4) + math.log(0.01)) / 2)
    assert log_loss([0.3, 0.009]) < log_loss([0.4, 1e-9]) < log_loss([0.4, 0.02])


def test_a_scorer_that_cannot_be_replayed_is_refused(request: pytest.FixtureRequest) -> None:
    folder = request.config.rootpath / "tests" / "data" / "pointer-chaser"
    with pytest.raises(StartupError, match="No split can be judged under this scorer: scorer h2o carries a statistic"):
        calibrate_sensitivity(folder, PROBES[:2], 32, 10, lambda *_: None, replace(METHOD, scorer="h2o"))
