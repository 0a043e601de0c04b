"""What importing costs."""

import subprocess
import sys


def test_pure_modules_import_neither_torch_nor_numpy():
    code = (
        "import sys, reasonalloc, reasonalloc.split, reasonalloc.profile, reasonalloc.errors;"
        "heavy = {'torch', 'numpy', 'triton'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
