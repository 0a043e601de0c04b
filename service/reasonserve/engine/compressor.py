"""The per-step driver: which requests round now, and what that does to SGLang's bookkeeping.

One per scheduler process. It owns every request's state, the cell tables and the query windows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from reasonalloc.profile import LayerProfile
from reasonalloc.scorers import Centres
from reasonserve.engine import rows
from reasonserve.engine.candidates import gather_candidates
from reasonserve.engine.figures import RowFigures
from reasonserve.engine.limits import check_lists_fit, longest_list
from reasonserve.engine.methods import check_satisfiable
from reasonserve.engine.plan import DecodePlanner
from reasonserve.engine.ranks import RankAgreement
from reasonserve.engine.recorder import RoundRecorder
from reasonserve.engine.reports import attach, round_event
from reasonserve.engine.requests import RequestState, parse_kv_request
from reasonserve.engine.rounds import run_round
from reasonserve.engine.sampling import mix_seed
from reasonserve.engine.tables import CellTables, QueryWindows
from reasonserve.kv import KvRequest, RoundEvent

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
        planner: Plans decode steps.
        pool_is_short: Whether every bounded request captures queries, so that it can be squeezed in time.
        num_heads: Query heads of this rank.
        centres: The profile's centres of these heads' queries; None where it has none.
        agreement: Holds this rank's rows against those of the others.
        mixes_chunks: Whether SGLang lets running requests join the chunk of a prompt.
        running_in_prefill: How many have joined the step that runs next.
    """

    def __init__(
        self,
        pool: OneTensorPool,
        req_to_token: torch.Tensor,
        num_heads: int,
        settings: EngineSettings,
        profile: LayerProfile | None,
        agreement: RankAgreement,
        *,
        mixes_chunks: bool = False,
    ) -> None:
        self.pool = pool
        self.mixes_chunks = mixes_chunks
        self.running_in_prefill = 0
        self.num_heads = num_heads
        self.agreement = agreement
        self.settings = settings
        self.profile = profile
        self.centres: Centres | None = None
        if profile is not None and profile.queries is not None:
            first, device = agreement.rank * num_heads, str(pool.k_cells.device)
            self.centres = Centres.of(profile.queries, first=first, count=num_heads, device=device)
        self.pool_is_short = False
        rows = req_to_token.shape[0]
        self.tables = _lay_out_tables(rows, pool, settings)
        self.windows = QueryWindows(
            rows, pool.layer_num, settings.window_tokens, num_heads, pool.head_dim, pool.k_cells
        )
        self._figures = RowFigures(rows, self.windows.nobody, pool.k_cells.device)
        self.planner = DecodePlanner(self._figures, self.tables, self.windows, req_to_token, pool.layout.num_slots)
        self._req_to_token = req_to_token
        self._states: WeakKeyDictionary[Req, RequestState] = WeakKeyDictionary()
        # The first rank's heads alone: all ranks would write to the same files.
        self._recorder = RoundRecorder.from_environment() if agreement.rank == 0 else None

    def state_of(self, req: Req) -> RequestState:
        """Returns a request's state, made at its first prefill.

        A request whose options cannot be honoured is ended with the reason; it never decodes uncompressed.
        """
        state = self._states.get(req)
        if state is None:
            try:
                kv = parse_kv_request(req.sampling_params.custom_params) or _FULL
                check_satisfiable(kv, self.profile)
                if self.tables.fixed:
                    check_lists_fit(kv, self._longest_list(kv, req), self.tables.capacity)
            except ValueError as error:
                kv = _FULL
                _abort(req, str(error))
            state = RequestState(kv=kv, prompt_tokens=len(req.origin_input_ids))
            self._states[req] = state
        return state

    def _longest_list(self, kv: KvRequest, req: Req) -> int:
        prompt_tokens, max_new_tokens = len(req.origin_input_ids), int(req.sampling_params.max_new_tokens)
        return longest_list(kv, prompt_tokens, max_new_tokens, self.pool.layer_num, self.pool.head_num)

    def after_prefill_layout(self, batch: ScheduleBatch) -> None:
        """Checks new requests' options and counts their prompts, before the prefill runs."""
        for req in batch.reqs:
            state = self.state_of(req)
            if state.shared_slots < 0:
                state.shared_slots = req.prefix_len
            held = state.count(req.kv.kv_allocated_len)
            attach(req, len(req.output_ids), held, state)

    def growth_left(self, req: Req) -> int:
        """Returns the slots that a request may still take on top of what it holds and what its prefill takes."""
        state = self.state_of(req)
        left = max(0, int(req.sampling_params.max_new_tokens) - len(req.output_ids))
        prefilled = len(req.origin_input_ids) + len(req.output_ids)
        # The last token is not stored yet; a shorter row that is still dense is in the midst of its prefill.
        in_prefill = state.table_row < 0 and req.kv.kv_allocated_len < prefilled - 1
        filled = prefilled if in_prefill else req.kv.kv_allocated_len
        missing = max(0, self.settings.window_tokens - state.captured(req.kv.kv_allocated_len))
        return state.growth_left(filled, left, missing)

    def set_budget(self, req: Req, budget_tokens: int) -> bool:
        """Sets the budget that a request's caller wants; False for a request without one."""
        state = self.state_of(req)
        if state.compressible:
            state.ask(budget_tokens)
        return state.compressible

    def run_due_rounds(self, batch: ScheduleBatch) -> None:
        """Runs the rounds that are due, before SGLang asks whether the next step fits its pool."""
        due: list[int] = []
        for i, req, state in self.running(batch):
            allocated = req.kv.kv_allocated_len
            state.count(allocated)
            if state.round_due(allocated, self.settings.window_tokens):
                due.append(i)
            elif state.squeezing and state.surplus_slots(allocated) <= 0:
                state.settle_without_round()
        self._run_rounds(batch, due)

    def squeeze(self, batch: ScheduleBatch, budgets: Mapping[int, int]) -> None:
        """Rounds requests to the given budgets at once.

        Args:
            batch: The running batch.
            budgets: New budget by place in the batch, of requests whose query windows are full.
        """
        for i, budget in budgets.items():
            self.state_of(batch.reqs[i]).change_budget(budget)
        self._run_rounds(batch, list(budgets))

    def running(self, batch: ScheduleBatch) -> Iterator[tuple[int, Req, RequestState]]:
        """Yields place, request and state of what still holds KV memory in a batch that SGLang did not filter yet."""
        for i, req in enumerate(batch.reqs):
            if req.kv.holds_kv:
                yield i, req, self.state_of(req)

    def before_decode(self, batch: ScheduleBatch) -> None:
        """Attaches each request's counters to the token that this step makes; readies what the step's plan reads."""
        self.agreement.check(
            (req.rid, req.kv.kv_allocated_len, state.budget_tokens) for _, req, state in self.running(batch)
        )
        for _, req, state in self.running(batch):
            self._capture_ahead(state, req.kv.kv_allocated_len)
            self._figures.note(req.kv.req_pool_idx, state)
            next_allocated = req.kv.kv_allocated_len + 1
            attach(req, state.output_tokens(next_allocated), state.count(next_allocated), state)
        self._figures.flush()

    def release(self, req: Req) -> None:
        """Takes back what a request holds here; called whenever SGLang gives its KV memory back."""
        state = self._states.get(req)
        if state is None:
            return
        self._figures.note(req.kv.req_pool_idx, None)
        if state.table_row >= 0:
            self.tables.give_back(state.table_row)
        if state.window_row >= 0:
            self.windows.give_back(state.window_row)
        state.reset()

    def _capture_ahead(self, state: RequestState, allocated: int) -> None:
        window = self.settings.window_tokens
        wanted = state.captures_next(allocated + 1, window) or (self.pool_is_short and state.compressible)
        if state.window_row < 0 and wanted:
            state.window_row = self.windows.take()
            state.window_start = allocated

    def _run_rounds(self, batch: ScheduleBatch, places: list[int]) -> None:
        shrunk: dict[int, int] = {}
        for i in places:
            req = batch.reqs[i]
            state = self.state_of(req)
            if self._owns_budget(req, state, batch.tree_cache):
                state.event = self._round(req, state, batch.tree_cache)
                shrunk[i] = req.kv.kv_allocated_len
        if shrunk:
            _set_lengths(batch, shrunk)
            batch.batch_is_full = False  # SGLang looks at its queue again only when a request has left

    def _owns_budget(self, req: Req, state: RequestState, tree_cache: Any) -> bool:
        if state.kv.prompt_mode == "pinned" or state.table_row >= 0:
            return True
        return rows.own_budget(req, state, tree_cache, self.pool, self._req_to_token)

    def _round(self, req: Req, state: RequestState, tree_cache: Any) -> RoundEvent:
        started, unix_time_s = time.perf_counter(), time.time()
        allocated = req.kv.kv_allocated_len
        output_tokens = state.output_tokens(allocated)
        rebased = state.table_row < 0 and state.kv.prompt_mode == "evictable"
        queries_LWQD = self.windows.oldest_first(state.window_row, state.captured(allocated))
        slots_N = self._req_to_token[req.kv.req_pool_idx, :allocated]
        work = gather_candidates(state, queries_LWQD, self.pool.layout, self.tables, slots_N, with_prompt=rebased)
        work = replace(
            work,
            seed=mix_seed(req.sampling_params.sampling_seed or 0, output_tokens),
            position=state.prompt_tokens + output_tokens,
            centres=self.centres,
            first_head=self.agreement.rank * self.pool.head_num,
        )
        output = run_round(state.kv.method, self.pool.k_cells, self.pool.v_cells, work, self.profile, self.settings)
        state.statistic_LHK = output.statistic_LHN
        if self._recorder is not None:
            stored = state.prompt_tokens + output_tokens
            self._recorder.write(req.rid, output, stored, 0 if rebased else state.pinned_slots)
        if rebased:
            rows.rebase(req, state, tree_cache, self._req_to_token)
        else:
            rows.give_back_tail(req, state, tree_cache)
        if state.table_row < 0:
            state.table_row = self.tables.take()
        self.tables.write(state.table_row, output.cells_LHN, output.lengths_LH)
        self.windows.give_back(state.window_row)
        state.window_row = -1
        evicted_slots = (allocated if rebased else allocated - state.pinned_slots) - state.budget_tokens
        return round_event(
            output,
            unix_time_s=unix_time_s,
            output_tokens=output_tokens,
            evicted_cells=evicted_slots * self.pool.layout.cells_per_slot,
            num_ranks=self.agreement.num_ranks,
            seconds=time.perf_counter() - started,
        )


def _lay_out_tables(rows: int, pool: OneTensorPool, settings: EngineSettings) -> CellTables:
    device = pool.k_cells.device
    fixed = settings.fixed_tables or device.type != "cpu"
    return CellTables(rows, pool.layer_num, pool.head_num, settings.table_cells, device, fixed=fixed)


def _set_lengths(batch: ScheduleBatch, shrunk: dict[int, int]) -> None:
    """Gives a batch the new lengths of its rows, on fresh tensors: the old ones may still be read."""
    places, lengths = torch.tensor(list(shrunk)), torch.tensor(list(shrunk.values()))
    for name in ("seq_lens", "seq_lens_cpu"):
        old = getattr(batch, name)
        setattr(batch, name, old.index_copy(0, places.to(old.device), lengths.to(old)))
    batch.seq_lens_sum = None


def _abort(req: Req, message: str) -> None:
    from http import HTTPStatus

    from sglang.srt.managers.schedule_batch import FINISH_ABORT

    req.to_finish = FINISH_ABORT(message, status_code=HTTPStatus.BAD_REQUEST, err_type="BadRequestError")
