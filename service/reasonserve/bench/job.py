"""Runs one job on a real engine in a process of its own: ``python -m reasonserve.bench.job JOB OUT``.

A job is a JSON document. It says which engine (``stock`` is SGLang with the plugin off), its dtype and pool,
and waves of requests; the requests of a wave run together, or ``at_once`` of them at any time. A request may
leave (``abort_after`` so many tokens), have its budget changed on the way (``set_budget``: ``after`` so many
tokens ``to`` so many slots) or, on stock, report each token's ``margins``. Tests and benchmarks share this, so
that both engines get the same work in the same way.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from reasonserve.config import EngineConfig, ServiceConfig
from reasonserve.errors import ReasonServeError
from reasonserve.kv import KvRequest
from reasonserve.models.fingerprint import fingerprint
from reasonserve.models.profiles import shipped_profile
from reasonserve.replica.protocol import EngineRequest, Sampling
from reasonserve.stack.process import terminate, tree

Job = dict[str, Any]
Results = dict[str, Any]

_GRACE_S = 5.0
_GREEDY = {"temperature": 0.0, "ignore_eos": True}
_STOCK_PLUGINS = "reasonserve_cpu"
"""The platform that lets SGLang run on any CPU, and nothing else of ours."""


class JobFailedError(RuntimeError):
    """A job's process ended with an error; the message is the end of its log."""


def run_job(job: Job, folder: Path, *, timeout_s: float = 1800.0) -> Results:
    """Runs a job in a process of its own and returns its results.

    Args:
        job: ``engine`` ("stock" or "reasonserve"), ``model``, ``dtype``, ``pool_slots``, ``waves``; optionally
            ``environment`` of the process, the ``module`` that runs it in place of this one, SGLang's own ``arguments``
            over ours, and ``outputs_file``, which gets a JSON line for each request as soon as it ends.
        folder: Where job, log and results are written.
        timeout_s: The process is killed after this long.

    Raises:
        JobFailedError: The process failed, or took longer.
    """
    (folder / "job.json").write_text(json.dumps(job))
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", **job.get("environment", {})}
    if job["engine"] == "stock" and "SGLANG_PLUGINS" not in job.get("environment", {}):
        environment["SGLANG_PLUGINS"] = _STOCK_PLUGINS
    module = job.get("module", "reasonserve.bench.job")
    command = [sys.executable, "-m", module, str(folder / "job.json"), str(folder / "out.json")]
    with (folder / "log").open("w") as log:
        returncode = _wait(subprocess.Popen(command, env=environment, stdout=log, stderr=log), timeout_s)
    if returncode != 0:
        raise JobFailedError((folder / "log").read_text()[-4000:])
    return dict(json.loads((folder / "out.json").read_text()))


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> int:
    """Returns the exit code; a process that is not waited for to its end goes with all that it started.

    Raises:
        JobFailedError: It took longer.
    """
    started = psutil.Process(process.pid)
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        terminate(tree(started), grace_s=_GRACE_S)
        process.wait()
        raise JobFailedError(f"The engine was not done after {timeout_s:.0f} s.") from None
    except BaseException:
        terminate(tree(started), grace_s=_GRACE_S)
        process.wait()
        raise


async def _run_stock(engine: Any, request: dict[str, Any]) -> Results:
    margins = request.get("margins", False)
    output = await engine.async_generate(
        input_ids=request["input_ids"],
        sampling_params={**_GREEDY, **request["sampling"]},
        cache_salt=request.get("cache_salt"),
        **({"return_logprob": True, "top_logprobs_num": 2} if margins else {}),
    )
    meta = output["meta_info"]
    best = [[entry[0] for entry in token] for token in meta["output_top_logprobs"]] if margins else []
    return {
        "token_ids": output["output_ids"],
        "cached_tokens": meta["cached_tokens"],
        "retractions": meta["num_retractions"],
        "margins": [first - second for first, second in best],
    }


async def _run_reasonserve(engine: Any, request: dict[str, Any]) -> Results:
    call = EngineRequest(
        request_id=request["id"],
        input_ids=tuple(request["input_ids"]),
        sampling=Sampling(**{**_GREEDY, **request["sampling"]}),
        kv=KvRequest(**request["kv"]),
        cache_salt=request.get("cache_salt", ""),
    )
    tokens: list[int] = []
    held: list[int] = []
    changes = list(request.get("set_budget", ()))
    stream, made = engine.generate(call), 0
    try:
        async for chunk in stream:
            tokens += chunk.token_ids
            held.append(chunk.kv.held_slots)
            if changes and len(tokens) >= changes[0]["after"]:
                await engine.set_budget(call.request_id, changes.pop(0)["to"])
            if len(tokens) >= request.get("abort_after", sys.maxsize) and not chunk.finish_reason:
                made = await _abort(engine, call.request_id, stream)
                break
    except ReasonServeError as error:
        return {"error": type(error).__name__, "message": error.message}
    return {
        "token_ids": tokens,
        "finish_reason": chunk.finish_reason,
        "cached_tokens": chunk.cached_tokens,
        "retractions": chunk.retractions,
        "held": held,
        "kv": asdict(chunk.kv),
        "made": made or len(tokens),
    }


async def _abort(engine: Any, request_id: str, stream: Any) -> int:
    """Closes a stream; returns the tokens that the engine made in all before it stopped, 0 if it was done before."""
    state = engine._manager.rid_to_state.get(request_id)
    await stream.aclose()
    while state is not None and not state.finished:
        await asyncio.sleep(0.005)
    return 0 if state is None else len(state.output_ids)


def _start(job: Job) -> tuple[Any, Any, Any]:
    """Starts the job's engine; returns it, SGLang's tokenizer manager and its event loop."""
    if job["engine"] == "stock":
        import sglang

        arguments = {
            "model_path": job["model"],
            "device": "cpu",
            "dtype": job["dtype"],
            "attention_backend": "torch_native",
            "grammar_backend": "none",
            "max_total_tokens": job["pool_slots"],
            "load_snapshot_publish_interval": 4,
            "skip_server_warmup": True,
            "sleep_on_idle": True,
            "log_level": "error",
        }
        engine = sglang.Engine(**{**arguments, **job.get("arguments", {})})
        return engine, engine.tokenizer_manager, engine.loop
    from reasonserve.replica.sglang_engine import create

    section = {key: job[key] for key in EngineConfig.model_fields if key in job}
    gpus = 1 if section.get("device") == "cuda" else 0
    config = ServiceConfig.from_mapping({"engine": section, "replicas": {"num_gpus": gpus}})
    profile = job.get("profile") or shipped_profile(fingerprint(Path(job["model"])))
    ours = create(config, job["model"], profile, arguments=job.get("arguments"))
    return ours, ours._manager, ours._engine.loop


async def _watch_running(manager: Any, peak: list[int]) -> None:
    """Keeps the most requests that ran at once, as the scheduler publishes it every few steps."""
    while True:
        loads = await manager.get_loads(include=["core"])
        peak[0] = max(peak[0], *(load.num_running_reqs for load in loads))
        await asyncio.sleep(0.05)


def _processor_seconds() -> float:
    """Returns the processor time that the engine's processes have taken."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(t.user + t.system for t in times)


async def _run_wave(engine: Any, job: Job, wave: list[dict[str, Any]]) -> list[Results]:
    """Returns a wave's outputs in the order of its requests."""
    run = _run_stock if job["engine"] == "stock" else _run_reasonserve
    room = asyncio.Semaphore(job.get("at_once", len(wave)))

    async def one(request: dict[str, Any]) -> Results:
        async with room:
            output = await run(engine, request)
        if "outputs_file" in job:
            with Path(job["outputs_file"]).open("a") as file:
                file.write(json.dumps({"id": request["id"], "output": output}) + "\n")
        return output

    return await asyncio.gather(*map(one, wave))


async def _run_waves(engine: Any, manager: Any, job: Job) -> Results:
    results: Results = {"waves": []}
    for wave in job["waves"]:
        peak = [0]
        watch = asyncio.create_task(_watch_running(manager, peak))
        started, worked = time.perf_counter(), _processor_seconds()
        outputs = await _run_wave(engine, job, wave)
        seconds = time.perf_counter() - started
        watch.cancel()
        results |= {request["id"]: output for request, output in zip(wave, outputs, strict=True)}
        worked = _processor_seconds() - worked
        results["waves"].append({"seconds": seconds, "processor_s": worked, "most_running": peak[0]})
    if job["engine"] != "stock":
        await asyncio.sleep(1.5)  # the scheduler checks its pool when it is idle
        results["handshake"] = asdict(engine.handshake)
        results["overlap"] = not engine._engine.server_args.disable_overlap_schedule
        results["used_slots"] = (await engine.load()).used_slots  # raises if a check ended the engine
    return results


def main(job_file: str, results_file: str) -> None:
    """Runs the job of one file and writes its results to another."""
    job = json.loads(Path(job_file).read_text())
    engine, manager, loop = _start(job)
    try:
        results = loop.run_until_complete(_run_waves(engine, manager, job))
    finally:
        engine.shutdown()
    Path(results_file).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
