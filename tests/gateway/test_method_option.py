"""``--method`` takes what the gateway takes, and refuses the rest before anything is sent."""

import pytest
from typer.testing import CliRunner

from reasonalloc.methods import HEAD_RULES, LAYER_RULES, SCORERS
from reasonserve.cli.main import app
from reasonserve.kv import METHODS, triple_of


@pytest.mark.parametrize("name", METHODS)
def test_help_names_every_method(name):
    help_text = CliRunner().invoke(app, ["generate", "--help"]).output
    assert name in help_text.split("--method")[1]


def test_an_unknown_method_is_refused_with_what_is_allowed():
    result = CliRunner().invoke(app, ["generate", "hello", "--method", "wave/uniform/r-kv"])
    assert result.exit_code == 2
    assert "scorer is 'r-kv'; give one of rkv" in " ".join(result.output.replace("│", " ").split())


def test_every_triple_is_a_method():
    triples = [f"{layer}/{head}/{scorer}" for layer in LAYER_RULES for head in HEAD_RULES for scorer in SCORERS]
    assert [str(triple_of(name)) for name in triples] == triples
    assert triple_of("full") is None
