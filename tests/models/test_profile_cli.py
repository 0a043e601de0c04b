"""Profiles for people: shown, compared and drawn from files."""

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reasonalloc.errors import ProfileError
from reasonalloc.profile import LayerProfile
from reasonserve.cli.profile import app
from reasonserve.cli.profile_show import difference, read_profile
from reasonserve.errors import InvalidRequestError
from reasonserve.models.judge import trial_profile

PNG = b"\x89PNG\r\n"


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    written = []
    for name, shares in {"even": (1.0, 1.0, 1.0, 1.0), "uneven": (1.5, 0.5, 0.5, 1.5)}.items():
        (tmp_path / f"{name}.json").write_text(trial_profile(shares, 2).to_json())
        written.append(str(tmp_path / f"{name}.json"))
    return written


def test_show_prints_shares_for_people_and_the_file_for_machines(files: list[str]) -> None:
    shown = CliRunner().invoke(app, ["show", files[1]])
    assert shown.exit_code == 0
    assert "sensitivity" in shown.output
    assert [line.split()[1] for line in shown.output.splitlines() if line.strip()[:1].isdigit() and "█" in line] == [
        "1.50",
        "0.50",
        "0.50",
        "1.50",
    ]
    assert json.loads(CliRunner().invoke(app, ["show", files[1], "--json"]).output) == json.loads(
        Path(files[1]).read_text()
    )


def test_diff_counts_the_cells_that_move(files: list[str]) -> None:
    compared = json.loads(CliRunner().invoke(app, ["diff", *files, "--json"]).output)
    assert compared["moved"] == 0.25  # two layers of four gain half a share each
    assert compared["same_model"]
    assert "cells that move: 25.0%" in CliRunner().invoke(app, ["diff", *files]).output


def test_profiles_of_different_depth_are_not_compared(files: list[str]) -> None:
    shallow = trial_profile((1.0, 1.0), 2)
    with pytest.raises(InvalidRequestError, match="4 and 2 layers; compare two of one model"):
        difference(read_profile(Path(files[0])), shallow)


def test_plot_writes_a_png(files: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["plot", *files, "-o", str(tmp_path / "both.png")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "both.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("change", [{"kind": "guess"}, {"demand": [1.0]}, {"format_version": 1}])
def test_what_is_no_profile_is_refused_with_the_reason(files: list[str], change: dict[str, object]) -> None:
    file = Path(files[0])
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InvalidRequestError, match=r"holds no layer profile: .*; (give|or)?"):
        read_profile(file)


def test_a_misfit_names_what_differs(files: list[str]) -> None:
    profile: LayerProfile = dataclasses.replace(read_profile(Path(files[0])), model_fingerprint="0f")
    with pytest.raises(ProfileError, match="model_fingerprint 0f, but the model has 1e"):
        profile.check_fits(4, 2, "1e")
