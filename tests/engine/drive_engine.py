"""Runs one job on a real engine in a process of its own: ``python drive_engine.py JOB OUT``.

A job says which engine (``stock`` or ``reasonserve``), its dtype and pool, and waves of requests. Requests of
a wave run together. The stock engine is SGLang with the plugin off.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any


async def run_stock(engine: Any, request: dict[str, Any]) -> dict[str, Any]:
    sampling = {"temperature": 0, "ignore_eos": True, **request["sampling"]}
    output = await engine.async_generate(input_ids=request["input_ids"], sampling_params=sampling)
    return {"token_ids": output["output_ids"], "cached_tokens": output["meta_info"]["cached_tokens"]}


async def run_reasonserve(engine: Any, request: dict[str, Any]) -> dict[str, Any]:
    from reasonserve.errors import ReasonServeError
    from reasonserve.kv import KvRequest
    from reasonserve.replica.protocol import EngineRequest, Sampling

    call = EngineRequest(
        request_id=request["id"],
        input_ids=tuple(request["input_ids"]),
        sampling=Sampling(**{"temperature": 0.0, "ignore_eos": True, **request["sampling"]}),
        kv=KvRequest(**request["kv"]),
        cache_salt=request.get("cache_salt", ""),
    )
    tokens: list[int] = []
    held: list[int] = []
    text = ""
    stream = engine.generate(call)
    try:
        async for chunk in stream:
            tokens += chunk.token_ids
            text += chunk.text
            held.append(chunk.kv.held_slots)
            if len(tokens) >= request.get("abort_after", 1 << 30):
                await stream.aclose()
                break
    except ReasonServeError as error:
        return {"error": type(error).__name__, "message": error.message}
    return {
        "token_ids": tokens,
        "text": text,
        "finish_reason": chunk.finish_reason,
        "cached_tokens": chunk.cached_tokens,
        "held": held,
        "kv": asdict(chunk.kv),
    }


def start(job: dict[str, Any]) -> tuple[Any, Any]:
    """Starts the job's engine; returns it and its event loop."""
    if job["engine"] == "stock":
        import sglang

        engine = sglang.Engine(
            model_path=job["model"],
            device="cpu",
            dtype=job["dtype"],
            attention_backend="torch_native",
            max_total_tokens=job["pool_slots"],
            skip_server_warmup=True,
            log_level="error",
        )
        return engine, engine.loop
    from reasonserve.config import ServiceConfig
    from reasonserve.models.fingerprint import fingerprint
    from reasonserve.models.profiles import shipped_profile
    from reasonserve.replica.sglang_engine import create

    config = ServiceConfig.from_mapping({"engine": {"dtype": job["dtype"], "pool_slots": job["pool_slots"]}})
    ours = create(config, job["model"], shipped_profile(fingerprint(Path(job["model"]))))
    return ours, ours._engine.loop


async def watch_running(engine: Any, peak: list[int]) -> None:
    """Keeps the most requests that ran at once, as the scheduler publishes it every few steps."""
    while True:
        loads = await engine._manager.get_loads(include=["core"])
        peak[0] = max(peak[0], *(load.num_running_reqs for load in loads))
        await asyncio.sleep(0.05)


async def run_waves(engine: Any, job: dict[str, Any]) -> dict[str, Any]:
    run = run_stock if job["engine"] == "stock" else run_reasonserve
    results: dict[str, Any] = {}
    for wave in job["waves"]:
        peak = [0]
        watch = asyncio.create_task(watch_running(engine, peak)) if job["engine"] != "stock" else None
        outputs = await asyncio.gather(*[run(engine, request) for request in wave])
        if watch is not None:
            watch.cancel()
        results |= {request["id"]: output for request, output in zip(wave, outputs, strict=True)}
        results.setdefault("most_running", []).append(peak[0])
    if job["engine"] != "stock":
        await asyncio.sleep(1.5)  # the scheduler checks its pool when idle and publishes its load
        results["handshake"] = asdict(engine.handshake)
        await engine.check_health()
    return results


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    engine, loop = start(job)
    try:
        results = loop.run_until_complete(run_waves(engine, job))
    finally:
        engine.shutdown()
    Path(sys.argv[2]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
