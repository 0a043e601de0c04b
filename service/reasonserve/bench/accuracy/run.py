"""Asks what was not asked yet, on real engines, and writes every sample down."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from reasonserve.bench.accuracy.plan import Cell
from reasonserve.bench.accuracy.store import Record, SampleFile
from reasonserve.bench.accuracy.tasks import Task
from reasonserve.bench.job import Job, JobFailedError, Results, run_job
from reasonserve.bench.tasks.sample import Sample

AT_ONCE = 64
"""Questions that run at any time."""


_SPARE_SLOTS = 1024
"""Beyond what the questions can hold, so that the engine never squeezes for memory: cells would be unequal."""


class UnequalCellsError(RuntimeError):
    """An engine's own counters contradict the budget: the figures would compare unlike things."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What all cells share.

    Attributes:
        model: Folder of the model.
        dtype: Element type of weights and cache.
        profiles: Layer profiles by the names that contenders use, as JSON.
        tasks: By name.
        questions: Questions of each cell.
        at_once: Questions that run at any time; the pool has room for the longest of them.
    """

    model: Path
    dtype: str
    profiles: Mapping[str, str]
    tasks: Mapping[str, Task]
    questions: int
    at_once: int = AT_ONCE

    def profile_id(self, cell: Cell) -> str:
        """Returns the id of the profile that a cell splits layers by; empty where it needs none."""
        from reasonalloc.profile import LayerProfile

        name = cell.contender.profile
        return LayerProfile.from_json(self.profiles[name]).profile_id if name else ""


@dataclass(frozen=True, slots=True)
class _Question:
    cell: Cell
    sample: Sample
    input_ids: list[int]
    limit: int
    kv: dict[str, Any]

    def request(self) -> dict[str, Any]:
        seed = crc32(self.sample.name.encode())  # one seed for all would have scorers that draw draw the same for all
        sampling = {"max_new_tokens": self.limit, "ignore_eos": False, "seed": seed}
        name = f"{self.sample.name}@{id(self)}"
        return {
            "id": name,
            "cache_salt": name,  # a prompt that another contender left in the prefix cache would lower this one's peak
            "input_ids": self.input_ids,
            "sampling": sampling,
            "kv": self.kv,
        }


class Asker:
    """Turns questions into tokens, and outputs into samples."""

    def __init__(self, bench: Bench) -> None:
        from transformers import AutoTokenizer

        self._bench = bench
        self._tokenizer = AutoTokenizer.from_pretrained(bench.model)

    def encode(self, task: Task, sample: Sample) -> list[int]:
        """Returns the token ids of a question."""
        if not task.chat:
            return list(self._tokenizer(sample.prompt, add_special_tokens=False)["input_ids"])
        chat = [{"role": "user", "content": sample.prompt}]
        return list(self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))

    def record(self, question: _Question, output: Results, cells_per_slot: int) -> Record:
        """Grades an output.

        Raises:
            JobFailedError: The engine refused the question.
            UnequalCellsError: The engine kept other than the budget.
        """
        if "error" in output:
            raise JobFailedError(f"{question.sample.name} was refused: {output['message']}")
        kept_in_all(question.cell, question.kv, len(question.input_ids), output, cells_per_slot)
        task, counters = self._bench.tasks[question.cell.task], output["kv"]
        text = self._tokenizer.decode(output["token_ids"])
        grade = task.grade(question.sample, text)
        return {
            "cell": question.cell.key(),
            "name": question.sample.name,
            "profile_id": self._bench.profile_id(question.cell),
            "correct": grade.correct,
            "part": grade.part,
            "prompt_tokens": len(question.input_ids),
            "output_tokens": len(output["token_ids"]),
            "finish_reason": output["finish_reason"],
            "peak_slots": counters["peak_slots"],
            "rounds": [[r[name] for name in ROUND_FIELDS] for r in counters["rounds"]],
            "layer_budgets": counters["rounds"][-1]["layer_budgets"] if counters["rounds"] else [],
            "output": text,
        }


ROUND_FIELDS = ("output_tokens", "kept_cells", "head_min", "head_max")
"""What a sample keeps of each round."""


def kept_in_all(cell: Cell, kv: Mapping[str, Any], prompt_tokens: int, output: Results, cells_per_slot: int) -> None:
    """Checks by the engine's own counters that a request kept its budget, no more and no less.

    Raises:
        UnequalCellsError: A round left other than the budget's cells, or more slots were held than budget and buffer.
    """
    if cell.contender.method == "full":
        return
    pinned = prompt_tokens if kv["prompt_mode"] == "pinned" else 0
    rounds = output["kv"]["rounds"]
    kept = {pinned + event["kept_cells"] / cells_per_slot for event in rounds}
    if kept - {float(cell.budget)}:
        raise UnequalCellsError(f"{cell}: rounds left {sorted(kept)} slots' worth of cells, not {cell.budget}.")
    if rounds:
        shared = output["cached_tokens"] if pinned else 0
        most = shared + max(output["held"][rounds[0]["output_tokens"] + 1 :], default=0)
        if most > cell.budget + cell.buffer:
            raise UnequalCellsError(
                f"{cell}: {most} slots were held after a round; {cell.budget + cell.buffer} may be."
            )


def missing(bench: Bench, asker: Asker, cells: Sequence[Cell], samples: SampleFile) -> list[_Question]:
    """Returns the questions that no sample answers yet; cells without room beside a pinned prompt have none."""
    questions = []
    for cell in cells:
        task = bench.tasks[cell.task]
        for index in range(bench.questions):
            sample = task.make(index)
            if samples.get(cell, sample.name, bench.profile_id(cell)) is not None:
                continue
            ids = asker.encode(task, sample)
            if (kv := cell.kv(len(ids))) is not None:
                questions.append(_Question(cell, sample, ids, task.limit(sample), kv))
    return questions


def ask(bench: Bench, cells: Sequence[Cell], samples: SampleFile, tick: Callable[[int, int], None]) -> None:
    """Asks every missing question; one engine for each profile. What was answered is kept whenever it ends.

    Raises:
        JobFailedError: An engine's process failed.
        UnequalCellsError: An engine kept other than a budget.
    """
    asker = Asker(bench)
    questions = missing(bench, asker, cells, samples)
    done = 0
    for profile, group in _by_profile(questions, list(bench.profiles)):
        for question, output, per_slot in _run(bench, bench.profiles.get(profile), group):
            samples.add([asker.record(question, output, per_slot)])
            done += 1
            tick(done, len(questions))


def _by_profile(questions: Sequence[_Question], profiles: Sequence[str]) -> Iterator[tuple[str, list[_Question]]]:
    """Groups questions by profile; those that need none go with the first group."""
    named = [name for name in profiles if any(q.cell.contender.profile == name for q in questions)]
    first = named[0] if named else ""
    for name in named or [first]:
        group = [q for q in questions if (q.cell.contender.profile or first) == name]
        if group:
            yield name, group


def _run(bench: Bench, profile: str | None, questions: Sequence[_Question]) -> Iterator[tuple[_Question, Results, int]]:
    """Runs questions on one engine; yields each with its output as soon as it ends, and the cells of a slot."""
    config = json.loads((bench.model / "config.json").read_text())
    per_slot = config["num_hidden_layers"] * config["num_key_value_heads"]
    requests = [question.request() for question in questions]
    asked = dict(zip((request["id"] for request in requests), questions, strict=True))
    longest = sorted((len(q.input_ids) + q.limit for q in questions), reverse=True)[: bench.at_once]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as worker:
        outputs_file = Path(folder) / "outputs.jsonl"
        job: Job = {
            "engine": "reasonserve",
            "model": str(bench.model),
            "dtype": bench.dtype,
            "pool_slots": sum(longest) + _SPARE_SLOTS,
            "strict_checks": False,
            "profile": profile,
            "outputs_file": str(outputs_file),
            "at_once": bench.at_once,
            "waves": [requests],
        }
        running = worker.submit(run_job, job, Path(folder), timeout_s=24 * 3600.0)
        for line in _lines(outputs_file, running):
            done = json.loads(line)
            yield asked[done["id"]], done["output"], per_slot


def _lines(file: Path, running: Future[Results]) -> Iterator[str]:
    """Yields the whole lines of a file that another process appends to, until that process ends."""
    file.touch()
    with file.open() as appended:
        rest = ""
        while True:
            ended = running.done()
            *lines, rest = (rest + appended.read()).split("\n")
            yield from lines
            if ended:
                running.result()
                return
            time.sleep(0.5)
