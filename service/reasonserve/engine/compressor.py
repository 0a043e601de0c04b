"""The per-step driver: which requests round now, and what that does to SGLang's bookkeeping.

One per scheduler process. It owns every request's state, the cell tables and the query windows.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from reasonalloc.profile import LayerProfile
from reasonserve.engine import rows
from reasonserve.engine.methods import check_satisfiable
from reasonserve.engine.recorder import RoundRecorder
from reasonserve.engine.requests import RequestState, parse_kv_request
from reasonserve.engine.rounds import RoundInput, RoundOutput, run_round
from reasonserve.engine.sampling import mix_seed
from reasonserve.engine.tables import CellTables, QueryWindows
from reasonserve.kv import REPORT_KEY, KvRequest, RoundEvent

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch

    from reasonserve.engine.pool import OneTensorPool
    from reasonserve.engine.settings import EngineSettings

_FULL = KvRequest(method="full", budget_tokens=0)


class Compressor:
    """Compresses the requests of one scheduler process.

    Attributes:
        tables: Cell tables of the requests that had a round.
        windows: Query windows of the requests that near one.
    """

    def __init__(
        self,
        pool: OneTensorPool,
        req_to_token: torch.Tensor,
        num_heads: int,
        settings: EngineSettings,
        profile: LayerProfile | None,
    ) -> None:
        device = pool.k_cells.device
        self.pool = pool
        self.settings = settings
        self.profile = profile
        self.tables = CellTables(pool.layer_num, pool.head_num, device)
        self.windows = QueryWindows(pool.layer_num, settings.window_tokens, num_heads, pool.head_dim, pool.k_cells[:0])
        self._req_to_token = req_to_token
        self._states: WeakKeyDictionary[Req, RequestState] = WeakKeyDictionary()
        self._by_pool_row: dict[int, RequestState] = {}
        self._recorder = RoundRecorder.from_environment()

    def state_of(self, req: Req) -> RequestState:
        """Returns a request's state, made at its first prefill.

        A request whose options cannot be honoured is ended with the reason; it never decodes uncompressed.
        """
        state = self._states.get(req)
        if state is None:
            try:
                kv = parse_kv_request(req.sampling_params.custom_params) or _FULL
                check_satisfiable(kv, self.profile)
            except ValueError as error:
                kv = _FULL
                _abort(req, str(error))
            state = RequestState(kv=kv, prompt_tokens=len(req.origin_input_ids))
            self._states[req] = state
        return state

    def state_in_row(self, pool_row: int) -> RequestState | None:
        """Returns the state of the request that holds a row of ``req_to_token``, or None."""
        return self._by_pool_row.get(pool_row)

    def after_prefill_layout(self, batch: ScheduleBatch) -> None:
        """Checks new requests' options and counts their prompts, before the prefill runs."""
        for req in batch.reqs:
            state = self.state_of(req)
            if state.shared_slots < 0:
                state.shared_slots = req.prefix_len
            held = state.count(req.kv.kv_allocated_len)
            _attach(req, len(req.output_ids), held, state, None)

    def growth_left(self, req: Req) -> int:
        """Returns the slots that a request may still take on top of what it holds and what its prefill takes."""
        state = self.state_of(req)
        left = max(0, int(req.sampling_params.max_new_tokens) - len(req.output_ids))
        filled = req.kv.kv_allocated_len or len(req.origin_input_ids) + len(req.output_ids)
        return state.growth_left(filled, left, self.settings.window_tokens)

    def run_due_rounds(self, batch: ScheduleBatch) -> None:
        """Runs the rounds that are due, before SGLang asks whether the next step fits its pool."""
        shrunk: dict[int, int] = {}
        for i, req in enumerate(batch.reqs):
            state = self.state_of(req)
            state.count(req.kv.kv_allocated_len)
            due = state.round_due(req.kv.kv_allocated_len, self.settings.window_tokens)
            if due and self._owns_budget(req, state, batch.tree_cache):
                state.event = self._round(req, state, batch.tree_cache)
                shrunk[i] = req.kv.kv_allocated_len
        if shrunk:
            _set_lengths(batch, shrunk)

    def before_decode(self, batch: ScheduleBatch) -> None:
        """Attaches each request's counters to the token that this step makes; takes windows that fill soon."""
        for req in batch.reqs:
            state = self.state_of(req)
            self._by_pool_row[req.kv.req_pool_idx] = state
            self._capture_ahead(state, req.kv.kv_allocated_len)
            self._report(req, state)

    def release(self, req: Req) -> None:
        """Takes back what a request holds here; called whenever SGLang gives its KV memory back."""
        state = self._states.get(req)
        if state is None:
            return
        self._by_pool_row.pop(req.kv.req_pool_idx, None)
        if state.table_row >= 0:
            self.tables.give_back(state.table_row)
        if state.window_row >= 0:
            self.windows.give_back(state.window_row)
        state.reset()

    def _capture_ahead(self, state: RequestState, allocated: int) -> None:
        if state.window_row < 0 and state.captures_next(allocated + 1, self.settings.window_tokens):
            state.window_row = self.windows.take()
            state.window_start = allocated

    def _owns_budget(self, req: Req, state: RequestState, tree_cache: Any) -> bool:
        if state.kv.prompt_mode == "pinned" or state.table_row >= 0:
            return True
        return rows.own_budget(req, state, tree_cache, self.pool, self._req_to_token)

    def _round(self, req: Req, state: RequestState, tree_cache: Any) -> RoundEvent:
        started, unix_time_s = time.perf_counter(), time.time()
        allocated = req.kv.kv_allocated_len
        output_tokens = state.output_tokens(allocated)
        rebased = state.table_row < 0 and state.kv.prompt_mode == "evictable"
        work = self._candidates(state, self._req_to_token[req.kv.req_pool_idx], allocated, rebased)
        work = replace(work, seed=mix_seed(req.sampling_params.sampling_seed or 0, output_tokens))
        output = run_round(state.kv.method, self.pool.k_cells, self.pool.v_cells, work, self.profile, self.settings)
        state.statistic_LHK = output.statistic_LHN
        if self._recorder is not None:
            stored = state.prompt_tokens + output_tokens
            self._recorder.write(req.rid, output, stored, 0 if rebased else state.pinned_slots)
        if rebased:
            rows.rebase(req, state, tree_cache, self._req_to_token)
        else:
            rows.give_back_tail(req, state, tree_cache)
        self._write_table(state, self._req_to_token[req.kv.req_pool_idx], output)
        self.windows.give_back(state.window_row)
        state.window_row = -1
        evicted_slots = (allocated if rebased else allocated - state.pinned_slots) - state.kv.budget_tokens
        return self._event(output, unix_time_s, output_tokens, evicted_slots, started)

    def _candidates(
        self, state: RequestState, row_slots: torch.Tensor, allocated: int, with_prompt: bool
    ) -> RoundInput:
        """Collects what competes in a round, in true-position order."""
        pinned, budget = state.pinned_slots, state.kv.budget_tokens
        start = 0 if with_prompt else pinned
        owned_LH = None
        if state.table_row < 0:
            cells_LHN = self.pool.cell_ids(row_slots[start:allocated])
            lengths_LH = torch.full(cells_LHN.shape[:2], allocated - start, device=cells_LHN.device)
            index_N = torch.arange(start, allocated, device=cells_LHN.device)
            stays_N = (index_N >= pinned) & (index_N < pinned + budget)
            releasable_LHN = (~stays_N).expand(cells_LHN.shape)
        else:
            owned_LH = self.tables.owned[state.table_row]
            tail = allocated - pinned - budget
            longest = int(owned_LH.max()) + tail
            cells_LHN = self.tables.cells[state.table_row, :, :, pinned : pinned + longest]
            lengths_LH = owned_LH + tail
            releasable_LHN = torch.arange(longest, device=cells_LHN.device) >= owned_LH[..., None]
        queries_LWQD = self.windows.oldest_first(state.window_row, state.captured(allocated))
        return RoundInput(
            queries_LWQD=queries_LWQD,
            cells_LHN=cells_LHN,
            lengths_LH=lengths_LH,
            releasable_LHN=releasable_LHN,
            budget=budget,
            owned_LH=owned_LH,
            statistic_LHK=state.statistic_LHK,
        )

    def _write_table(self, state: RequestState, row_slots: torch.Tensor, output: RoundOutput) -> None:
        pinned = state.pinned_slots
        if state.table_row < 0:
            capacity = pinned + output.cells_LHN.shape[-1] + state.kv.buffer_tokens
            state.table_row = self.tables.take(capacity)
        self.tables.write(state.table_row, self.pool.cell_ids(row_slots[:pinned]), output.cells_LHN, output.lengths_LH)

    def _event(
        self, output: RoundOutput, unix_time_s: float, output_tokens: int, evicted_slots: int, started: float
    ) -> RoundEvent:
        cells_per_slot = self.pool.layer_num * self.pool.head_num
        return RoundEvent(
            unix_time_s=unix_time_s,
            output_tokens=output_tokens,
            kept_cells=int(output.lengths_LH.sum()),
            evicted_cells=evicted_slots * cells_per_slot,
            seconds=time.perf_counter() - started,
            layer_budgets=tuple(output.lengths_LH.double().mean(-1).tolist()),
            head_min=int(output.lengths_LH.min()),
            head_max=int(output.lengths_LH.max()),
        )

    def _report(self, req: Req, state: RequestState) -> None:
        next_allocated = req.kv.kv_allocated_len + 1
        held = state.count(next_allocated)
        _attach(req, state.output_tokens(next_allocated), held, state, state.event)
        state.event = None


def _attach(req: Req, token_index: int, held: int, state: RequestState, event: RoundEvent | None) -> None:
    """Attaches counters to an output token; SGLang carries them to the replica.

    Every token needs an entry from the first one on: SGLang slices the list by token.
    """
    if req.customized_info is None:
        req.customized_info = {}
    steps = req.customized_info.setdefault(REPORT_KEY, [])
    del steps[token_index:]
    steps.extend([None] * (token_index - len(steps)))
    figures = {"held": held, "peak": state.peak_slots, "squeezes": state.squeezes}
    steps.append(figures | {"round": None if event is None else asdict(event)})


def _set_lengths(batch: ScheduleBatch, shrunk: dict[int, int]) -> None:
    """Gives a batch the new lengths of its rows, on fresh tensors: the old ones may still be read."""
    rows = torch.tensor(list(shrunk), device=batch.seq_lens.device)
    lengths = torch.tensor(list(shrunk.values()), device=batch.seq_lens.device)
    batch.seq_lens = batch.seq_lens.index_copy(0, rows, lengths.to(batch.seq_lens.dtype))
    batch.seq_lens_cpu = batch.seq_lens_cpu.index_copy(0, rows.cpu(), lengths.cpu().to(batch.seq_lens_cpu.dtype))
    batch.seq_lens_sum = None


def _abort(req: Req, message: str) -> None:
    from http import HTTPStatus

    from sglang.srt.managers.schedule_batch import FINISH_ABORT

    req.to_finish = FINISH_ABORT(message, status_code=HTTPStatus.BAD_REQUEST, err_type="BadRequestError")
