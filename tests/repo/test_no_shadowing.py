"""Our folders hide no foreign package: ``kernels`` and ``proto`` exist on the package index too."""

import importlib.util
from pathlib import Path

import pytest

SOURCE_ROOTS = {"kernels": "reasonalloc", "service": "reasonserve"}


@pytest.mark.parametrize("folder", ["kernels", "service", "proto", "helm"])
def test_no_top_folder_is_a_package(root: Path, folder: str) -> None:
    assert not (root / folder / "__init__.py").exists()


def test_no_test_folder_is_a_package(root: Path) -> None:
    assert list((root / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("name", ["kernels", "proto"])
def test_the_foreign_package_is_the_one_that_is_imported(root: Path, name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    assert "site-packages" in Path(spec.origin).parts


@pytest.mark.parametrize(("folder", "package"), SOURCE_ROOTS.items())
def test_a_source_root_holds_exactly_one_package(tracked: list[Path], folder: str, package: str) -> None:
    """An editable install puts the root on the path, where a sibling would be importable by its bare name."""
    modules = {path.parts[1] for path in tracked if path.parts[0] == folder and path.suffix == ".py"}
    assert modules == {package}
