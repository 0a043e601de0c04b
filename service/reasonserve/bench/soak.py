"""Many unlike requests in a pool too small for them, SGLang's strict checks on: nothing may leak or be lost."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import log2
from pathlib import Path
from typing import Any, Literal

from rich.progress import Progress
from rich.table import Table

from reasonserve.bench.job import Job, Results, run_job
from reasonserve.kv import MIN_BUDGET_TOKENS

Request = dict[str, Any]
End = Literal["finished", "aborted", "refused", "wrong"]

SHORT_ESTIMATE = {"SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION": "16"}
"""Environment of the mixed run: SGLang expects short answers and admits more than fits, or it would never retract."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How much is run.

    Attributes:
        requests: Requests of the mixed run; they are sent at once.
        longest: Most new tokens of one.
        pool_slots: KV pool of the mixed run; forces the engine to take memory back from running requests.
        shared: Requests of the run that compares the prefix cache with stock SGLang's.
        seed: Seed of the whole work.
    """

    requests: int
    longest: int
    pool_slots: int
    shared: int
    seed: int = 1


FULL = Setup(requests=2000, longest=512, pool_slots=1024, shared=200)
QUICK = Setup(requests=150, longest=384, pool_slots=640, shared=24)


@dataclass(frozen=True, slots=True)
class Account:
    """What became of every request.

    Attributes:
        ends: Requests by how they ended.
        refusals: Requests that were refused, by reason.
        faults: What went wrong, one line each; empty when all is well.
        rounds, squeezes, retractions: Over all requests.
        own_squeezes: Squeezes that no client asked for: the engine's own, when its pool ran short.
        tokens: Output tokens of all requests.
        seconds: Wall-clock time.
        used_slots: Slots in use after the last request ended.
        cached_here, cached_stock: Prompt tokens found in the prefix cache in the second run.
    """

    ends: dict[str, int]
    refusals: dict[str, int]
    faults: tuple[str, ...]
    rounds: int
    squeezes: int
    own_squeezes: int
    retractions: int
    tokens: int
    seconds: float
    used_slots: int
    cached_here: int
    cached_stock: int


def mixed_work(setup: Setup, vocabulary: int) -> list[Request]:
    """Returns the requests of the mixed run: random lengths, shared prefixes, budgets 32 to 1,024.

    A tenth leave early, a twentieth have their budget changed on the way, a fiftieth ask for what is not allowed.
    """
    random_ = random.Random(setup.seed)
    prefixes = _prefixes(random_, vocabulary)
    return [_mixed(random_, prefixes, vocabulary, number, setup.longest) for number in range(setup.requests)]


def shared_work(setup: Setup, vocabulary: int, *, stock: bool) -> list[list[Request]]:
    """Returns requests one after another whose prompts share prefixes; the same for both engines."""
    random_ = random.Random(setup.seed + 1)
    prefixes = _prefixes(random_, vocabulary)
    waves: list[list[Request]] = []
    for number in range(setup.shared):
        prompt = _prompt(random_, prefixes, vocabulary)
        budget, buffer = random_.choice((32, 48, 64)), 16
        kv = {"method": ("reasonalloc", "r-kv")[number % 2], "budget_tokens": budget, "buffer_tokens": buffer}
        request = {"id": f"shared-{number}", "input_ids": prompt, "sampling": {"max_new_tokens": 100}}
        waves.append([request if stock else {**request, "kv": kv}])
    return waves


def account(requests: Sequence[Request], results: Results, cached: tuple[int, int]) -> Account:
    """Counts how every request ended and collects what should not have happened."""
    ends: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    faults: list[str] = []
    finished = [results[r["id"]] for r in requests if "kv" in results[r["id"]]]
    for request in requests:
        end, fault = _end(request, results[request["id"]])
        ends[end] += 1
        if end == "refused":
            refusals[results[request["id"]]["message"].split(";")[0]] += 1
        if fault:
            faults.append(f"{request['id']}: {fault}")
    if results["used_slots"]:
        faults.append(f"{results['used_slots']} slots are in use after the last request ended.")
    unasked = [results[r["id"]] for r in requests if "kv" in results[r["id"]] and "set_budget" not in r]
    own_squeezes, retractions = sum(r["kv"]["squeezes"] for r in unasked), sum(r["retractions"] for r in finished)
    if not own_squeezes and not retractions:
        faults.append("The pool was never short: nothing was squeezed or retracted for it.")
    if cached[0] != cached[1]:
        faults.append(f"{cached[0]} prompt tokens were found in the prefix cache; stock SGLang found {cached[1]}.")
    return Account(
        ends=dict(ends),
        refusals=dict(refusals),
        faults=tuple(faults),
        rounds=sum(len(r["kv"]["rounds"]) for r in finished),
        squeezes=sum(r["kv"]["squeezes"] for r in finished),
        own_squeezes=own_squeezes,
        retractions=retractions,
        tokens=sum(len(r["token_ids"]) for r in finished),
        seconds=results["waves"][0]["seconds"],
        used_slots=results["used_slots"],
        cached_here=cached[0],
        cached_stock=cached[1],
    )


def measure(setup: Setup, model: str, vocabulary: int, progress: Progress) -> Account:
    """Runs both parts and accounts for them.

    Raises:
        JobFailedError: An engine's process failed; SGLang's checks end it at the first slot that leaks.
    """
    mixed = mixed_work(setup, vocabulary)
    jobs = {
        "mixed": mixed_job(setup, model, mixed),
        "shared": _shared_job("reasonserve", setup, model, vocabulary),
        "stock": _shared_job("stock", setup, model, vocabulary),
    }
    results: dict[str, Results] = {}
    task = progress.add_task("Engines", total=len(jobs))
    for name, job in jobs.items():
        progress.update(task, description=f"Running the {name} requests")
        with tempfile.TemporaryDirectory() as folder:
            results[name] = run_job(job, Path(folder), timeout_s=14400)
        progress.advance(task)
    here, stock = (
        sum(results[name][f"shared-{n}"]["cached_tokens"] for n in range(setup.shared)) for name in ("shared", "stock")
    )
    return account(mixed, results["mixed"], (here, stock))


def mixed_job(setup: Setup, model: str, requests: list[Request]) -> Job:
    """Returns the job that sends all requests at once to a pool too small for them."""
    job = _job("reasonserve", model, setup.pool_slots, [requests])
    return {**job, "environment": SHORT_ESTIMATE}


def _shared_job(engine: str, setup: Setup, model: str, vocabulary: int) -> Job:
    return _job(engine, model, 16384, shared_work(setup, vocabulary, stock=engine == "stock"))


def _job(engine: str, model: str, pool_slots: int, waves: list[list[Request]]) -> Job:
    return {"engine": engine, "model": model, "dtype": "bfloat16", "pool_slots": pool_slots, "waves": waves}


def table(found: Account) -> Table:
    """Returns the account, a line per figure."""
    shown = Table("what", "figure", title="Soak", title_justify="left")
    shown.columns[1].justify = "right"
    for name, figure in asdict(found).items():
        if name in ("ends", "refusals"):
            for what, count in figure.items():
                shown.add_row(f"{name[:-1] if name == 'ends' else 'refused'}: {what}", str(count))
        elif name != "faults":
            shown.add_row(name.replace("_", " "), f"{figure:.1f}" if isinstance(figure, float) else str(figure))
    for fault in found.faults:
        shown.add_row("[red]fault[/red]", fault)
    return shown


def _end(request: Request, result: dict[str, Any]) -> tuple[End, str]:
    """Returns how a request ended, and what is wrong with that."""
    if "error" in result:
        allowed = request.get("refused", False) and result["error"] == "InvalidRequestError"
        return ("refused", "") if allowed else ("wrong", f"{result['error']}: {result['message']}")
    if request.get("refused", False):
        return "wrong", "was served, though what it asks for is not allowed"
    tokens, wanted = len(result["token_ids"]), request["sampling"]["max_new_tokens"]
    if result["finish_reason"] == "length":
        return ("finished", "") if tokens == wanted else ("wrong", f"ended at {tokens} of {wanted} tokens")
    if "abort_after" in request:
        return "aborted", ""
    return "wrong", f"ended at {tokens} of {wanted} tokens without a reason"


def _prefixes(random_: random.Random, vocabulary: int) -> list[list[int]]:
    return [_tokens(random_, vocabulary, random_.randint(10, 120)) for _ in range(8)]


def _prompt(random_: random.Random, prefixes: list[list[int]], vocabulary: int) -> list[int]:
    return [*random_.choice(prefixes), *_tokens(random_, vocabulary, random_.randint(1, 60))]


def _tokens(random_: random.Random, vocabulary: int, count: int) -> list[int]:
    return [random_.randrange(4, vocabulary) for _ in range(count)]


def _mixed(
    random_: random.Random, prefixes: list[list[int]], vocabulary: int, number: int, longest: int
) -> dict[str, Any]:
    tokens = int(2 ** random_.uniform(2, log2(longest)))
    budget = int(2 ** random_.uniform(5, 10))
    method = random_.choice(("reasonalloc", "reasonalloc", "r-kv", "full"))
    mode = random_.choice(("pinned", "evictable"))
    kv: dict[str, Any] = {"method": "full", "budget_tokens": 0}
    if method != "full":
        buffer = random_.choice((16, 32, 64))
        kv = {"method": method, "budget_tokens": budget, "buffer_tokens": buffer, "prompt_mode": mode}
    request: dict[str, Any] = {
        "id": f"mixed-{number:04d}",  # none is a prefix of another: SGLang aborts by prefix
        "input_ids": _prompt(random_, prefixes, vocabulary),
        "sampling": {"max_new_tokens": tokens},
        "kv": kv,
    }
    chance = random_.random()
    if chance < 0.10:
        request["abort_after"] = random_.randrange(1, tokens + 1)
    elif chance < 0.15 and method != "full":
        request["set_budget"] = [{"after": tokens // 2, "to": random_.randint(MIN_BUDGET_TOKENS, budget)}]
    elif chance < 0.17:
        request |= {"refused": True, "kv": {"method": "r-kv", "budget_tokens": MIN_BUDGET_TOKENS - 1}}
    return request
