"""The upgrade alarm: every symbol that the plugin touches, held against the installed SGLang by its source."""

from __future__ import annotations

import ast
from importlib.metadata import distribution, version
from pathlib import Path

import pytest

from reasonserve.engine.seams import ATTRIBUTES, SEAMS, SGLANG_VERSION, Seam
from reasonserve.kv import REQUIRED_SEAMS

ROOT = Path(str(distribution("sglang").locate_file("")))


def find(dotted: str) -> ast.AST:
    """Returns the definition that a dotted path names."""
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        path = ROOT.joinpath(*parts[:cut]).with_suffix(".py")
        if path.is_file():
            node: ast.AST = ast.parse(path.read_text())
            for name in parts[cut:]:
                node = next(n for n in ast.iter_child_nodes(node) if getattr(n, "name", None) == name)
            return node
    raise LookupError(dotted)


def parameters(node: ast.AST) -> list[str]:
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef), ast.dump(node)
    return [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]


def test_installed_release_is_the_one_the_seams_were_read_from() -> None:
    assert version("sglang") == SGLANG_VERSION


@pytest.mark.parametrize("seam", SEAMS, ids=lambda s: s.name)
def test_seam_exists_with_the_parameters_we_rely_on(seam: Seam) -> None:
    found = parameters(find(seam.target))
    assert found[: len(seam.parameters)] == list(seam.parameters)


@pytest.mark.parametrize("owner", ATTRIBUTES)
def test_attributes_exist(owner: str) -> None:
    node = find(owner)
    assert isinstance(node, ast.ClassDef)
    names = {getattr(n, "name", None) for n in node.body}
    names |= {n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    names |= {
        n.attr
        for n in ast.walk(node)
        if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store) and getattr(n.value, "id", "") == "self"
    }
    assert set(ATTRIBUTES[owner]) <= names


def test_the_replica_requires_every_seam() -> None:
    assert sorted(s.name for s in SEAMS) == sorted(REQUIRED_SEAMS)
