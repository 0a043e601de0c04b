"""The snippets of the guides, as they stand there, against one real stack."""

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
GUIDES = ("quickstart", "grpc", "http")
SNIPPET = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Snippet(NamedTuple):
    """A block of code of a guide.

    Attributes:
        name: Guide and place in it.
        language: ``python`` or ``bash``.
        code: The block.
    """

    name: str
    language: str
    code: str


def snippets() -> list[Snippet]:
    found = []
    for guide in GUIDES:
        blocks = SNIPPET.findall((ROOT / "docs" / f"{guide}.md").read_text())
        found += [Snippet(f"{guide}-{n}", language, code) for n, (language, code) in enumerate(blocks, start=1)]
    return found


def tools(folder: Path) -> str:
    """Returns a PATH with this Python's commands and, where the machine has none, a grpcurl made of reflection."""
    if shutil.which("grpcurl") is None:
        stand_in = folder / "grpcurl"
        client = Path(__file__).with_name("reflecting_client.py")
        stand_in.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{client}" "$@"\n')
        stand_in.chmod(0o755)
    return os.pathsep.join([str(Path(sys.executable).parent), str(folder), os.environ["PATH"]])


@pytest.fixture(scope="module")
def ran(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[subprocess.CompletedProcess[str]]]:
    """Every snippet's run, two at a time, with the stack's ports in place of the default ones."""
    key = stack.create_tenant("reader", limit_slots=4096)
    http_port = json.loads((stack.state_dir / "config.json").read_text())["gateway"]["http_port"]
    variables = stack.environment(REASONSERVE_API_KEY=key, PATH=tools(tmp_path_factory.mktemp("bin")))

    def run(snippet: Snippet) -> subprocess.CompletedProcess[str]:
        code = snippet.code.replace("127.0.0.1:9000", stack.state.gateway_endpoint)
        code = code.replace("127.0.0.1:8000", f"127.0.0.1:{http_port}")
        command = [sys.executable, "-c", code] if snippet.language == "python" else ["bash", "-euc", code]
        return subprocess.run(
            command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )

    with ThreadPoolExecutor(2) as pool:
        return {snippet.name: pool.submit(run, snippet) for snippet in snippets()}


@pytest.mark.parametrize("name", [snippet.name for snippet in snippets()])
def test_a_snippet_does_what_the_guide_says(ran: dict[str, Any], name: str) -> None:
    done = ran[name].result()
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_snippets_show_what_they_are_for(ran: dict[str, Any]) -> None:
    told = {name: future.result().stdout for name, future in ran.items()}
    assert "held at most" in told["quickstart-2"]
    assert "held at most" in told["quickstart-3"]
    assert "rounds" in told["grpc-1"]
    assert told["grpc-2"].count("first token: -") == 2
    assert "reasonserve.api.v1.GenerationService.CountTokens" in told["grpc-3"]
    assert '"finishReason"' in told["grpc-4"]
    assert '"inputTokens"' in told["grpc-5"]
    assert "rounds" in told["http-1"]
    assert re.search(r"\{'rain': (True|False)\}", told["http-2"])
    assert json.loads(told["http-3"])["usage"]["completion_tokens"] == 16
