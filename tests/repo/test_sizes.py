"""Files stay under 300 lines and functions under 40, docstrings aside."""

import ast
from pathlib import Path

import pytest

MAX_FILE_LINES = 299
MAX_FUNCTION_LINES = 39

Function = ast.FunctionDef | ast.AsyncFunctionDef


def body_lines(function: Function) -> int:
    """Lines from ``def`` to the end, without the docstring."""
    assert function.end_lineno is not None
    total = function.end_lineno - function.lineno + 1
    match function.body[0]:
        case ast.Expr(value=ast.Constant(value=str()), lineno=first, end_lineno=int(last)):
            return total - (last - first + 1)
    return total


def test_files(root: Path, own_modules: list[Path]) -> None:
    lengths = {str(path): len((root / path).read_text().splitlines()) for path in own_modules}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_functions(root: Path, own_modules: list[Path]) -> None:
    long = {
        f"{path}:{node.lineno} {node.name}": lines
        for path in own_modules
        for node in ast.walk(ast.parse((root / path).read_text()))
        if isinstance(node, Function) and (lines := body_lines(node)) > MAX_FUNCTION_LINES
    }
    assert long == {}


@pytest.mark.parametrize(("docstring", "expected"), [("", 3), ('    """One.\n\n    Two.\n    """\n', 3)])
def test_docstrings_do_not_count(docstring: str, expected: int) -> None:
    (function,) = ast.parse(f"def f():\n{docstring}    a = 1\n    return a\n").body
    assert isinstance(function, ast.FunctionDef)
    assert body_lines(function) == expected
