"""Decode plans: from a row's figures on the device, at fixed addresses, and with nothing read back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from reasonalloc.ops.attend import attend_segments
from reasonserve.engine.figures import RowFigures
from reasonserve.engine.plan import DecodePlanner
from reasonserve.engine.requests import RequestState
from reasonserve.engine.tables import CellTables, QueryWindows
from reasonserve.kv import KvRequest

LAYERS, HEADS, QUERY_HEADS, WIDTH, WINDOW = 2, 2, 4, 8, 4
ROWS, CONTEXT, NUM_SLOTS, CAPACITY = 6, 40, 200, 32
CPU = torch.device("cpu")
imports_sglang = pytest.mark.filterwarnings("ignore")
"""SGLang, and what it imports, warns when it is first imported."""


class Engine:
    """Rows of requests, their tables, windows and figures, and a pool of distinct cells."""

    def __init__(self, device: torch.device = CPU, *, fixed: bool = True) -> None:
        g = torch.Generator().manual_seed(0)
        shape = (LAYERS * NUM_SLOTS * HEADS, WIDTH)
        self.k, self.v = (torch.randn(shape, generator=g).to(device) for _ in range(2))
        self.slots = torch.randint(1, NUM_SLOTS, (ROWS, CONTEXT), generator=g, dtype=torch.int32).to(device)
        self.slots[0] = 0
        self.tables = CellTables(ROWS, LAYERS, HEADS, CAPACITY, device, fixed=fixed)
        self.windows = QueryWindows(ROWS, LAYERS, WINDOW, QUERY_HEADS, WIDTH, self.k)
        self.windows.queries.zero_()
        self.figures = RowFigures(ROWS, self.windows.nobody, device)
        self.planner = DecodePlanner(self.figures, self.tables, self.windows, self.slots, NUM_SLOTS)
        self.states: dict[int, RequestState] = {}

    def run(self, row: int, *, owned: int = 0, window_start: int = -1) -> RequestState:
        """Puts a request into a row, or changes the one that is there: with owned cells if it had a round."""
        state = self.states.setdefault(row, RequestState(KvRequest(method="r-kv", budget_tokens=32), prompt_tokens=3))
        if owned:
            state.owned_slots = owned
            state.table_row = state.table_row if state.table_row >= 0 else self.tables.take()
            lengths = torch.randint(0, owned + 1, (LAYERS, HEADS))
            lengths[0, 1] = owned
            self.tables.write(state.table_row, torch.randint(0, len(self.k), (LAYERS, HEADS, owned)), lengths)
        if window_start >= 0 and state.window_row < 0:
            state.window_row, state.window_start = self.windows.take(), window_start
        if window_start < 0 and state.window_row >= 0:
            self.windows.give_back(state.window_row)
            state.window_row = -1
        self.figures.note(row, state)
        return state

    def cells(self, row: int, length: int, layer: int, head: int) -> list[int]:
        """The cells that a request attends to, looked up one by one."""
        state = self.states.get(row)
        slots = self.slots[row, :length].tolist()
        own: list[int] = []
        if state is not None and state.table_row >= 0:
            count = int(self.tables.owned[state.table_row, layer, head])
            own = self.tables.cells[state.table_row, layer, head, :count].tolist()
            slots = slots[:3] + slots[3 + state.owned_slots :]
        return [*own, *((layer * NUM_SLOTS + slot) * HEADS + head for slot in slots)]

    def attended(self, queries: torch.Tensor, row: int, length: int, layer: int) -> torch.Tensor:
        """Attention of one request by the definition. [Hq, D]"""
        outputs = []
        for head in range(QUERY_HEADS):
            cells = self.cells(row, length, layer, head * HEADS // QUERY_HEADS)
            weights = torch.softmax(self.k[cells] @ queries[head], dim=0)
            outputs.append(weights @ self.v[cells])
        return torch.stack(outputs)


class Recorded(TorchDispatchMode):
    """What a CUDA graph does: remembers operations and their tensors, and runs them again without Python between."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            if isinstance(again, torch.Tensor) and again.data_ptr() != result.data_ptr():
                result.copy_(again)


ROW = st.tuples(st.sampled_from(["dense", "round", "nobody"]), st.booleans(), st.integers(20, CONTEXT))


@given(st.lists(ROW, min_size=1, max_size=ROWS - 1), st.permutations(range(1, ROWS)))
def test_a_plan_says_where_each_request_lies(rows: list[tuple[str, bool, int]], order: list[int]) -> None:
    engine = Engine()
    for row, (kind, captures, length) in zip(order, rows, strict=False):
        if kind != "nobody":
            engine.run(row, owned=10 if kind == "round" else 0, window_start=length - 5 if captures else -1)
    engine.figures.flush()
    batch = order[: len(rows)]
    lengths = [length for _, _, length in rows]
    plan = engine.planner.view(len(batch), capturing=True)
    engine.planner.fill(plan, torch.tensor(batch), torch.tensor(lengths))
    queries = torch.randn((len(batch), QUERY_HEADS, WIDTH))
    out = attend_segments(queries, engine.k, engine.v, plan.segments, layer=1, scale=1.0)
    captures = plan.captures
    assert captures is not None
    for i, (row, length) in enumerate(zip(batch, lengths, strict=True)):
        torch.testing.assert_close(out[i], engine.attended(queries[i], row, length, 1))
        state = engine.states.get(row)
        if state is None or state.window_row < 0:
            assert captures.window_rows_B[i] == engine.windows.nobody
        else:
            place = (length - 1 - state.window_start) % WINDOW
            assert (captures.window_rows_B[i], captures.ring_B[i]) == (state.window_row, place)


def test_planning_reads_nothing_back_from_the_device() -> None:
    """Tensors of the device ``meta`` have no values: reading one raises."""
    meta = torch.device("meta")
    engine = Engine(meta)
    engine.figures.note(2, RequestState(KvRequest(method="full", budget_tokens=0), prompt_tokens=3, window_start=9))
    state = RequestState(KvRequest(method="r-kv", budget_tokens=32), prompt_tokens=3)
    state.table_row, state.window_row = 0, 0
    engine.figures.note(3, state)
    engine.figures.flush()
    plan = engine.planner.view(2, capturing=True)
    engine.planner.fill(plan, torch.empty(2, dtype=torch.int64, device=meta), torch.empty(2, device=meta))
    assert plan.captures is not None
    queries = torch.empty((2, QUERY_HEADS, WIDTH), device=meta)
    engine.windows.store(1, plan.captures.window_rows_B, plan.captures.ring_B, queries)


@pytest.mark.parametrize(("capturing", "most"), [(False, 4), (True, 6)])
def test_a_step_is_planned_in_few_operations(capturing: bool, most: int) -> None:
    """Views are free on any device and not counted; where nothing changed, no figures are written either."""
    engine = Engine()
    engine.run(1, owned=10, window_start=20)
    engine.figures.flush()
    engine.planner.view(2, capturing=capturing)
    with Recorded() as recorded:
        engine.run(1, owned=0, window_start=20)
        engine.figures.flush()
        plan = engine.planner.view(2, capturing=capturing)
        engine.planner.fill(plan, torch.tensor([1, 2]), torch.tensor([25, 30]))
    views = ("aten.select", "aten.slice", "aten.lift_fresh", "aten.detach")
    assert len([call for call in recorded.calls if not str(call[0]).startswith(views)]) <= most


def test_a_row_that_was_given_back_is_dense_and_captures_nothing() -> None:
    engine = Engine()
    engine.run(1, owned=10, window_start=20)
    engine.figures.flush()
    engine.figures.note(1, None)
    engine.figures.flush()
    plan = engine.planner.view(1, capturing=True)
    engine.planner.fill(plan, torch.tensor([1]), torch.tensor([25]))
    assert plan.captures is not None
    assert plan.segments.prefix_B.tolist() == plan.segments.tail_start_B.tolist() == [25]
    assert (int(plan.segments.table_rows_B), int(plan.captures.window_rows_B)) == (-1, engine.windows.nobody)


def test_a_plan_follows_tables_that_may_move() -> None:
    engine, queries = Engine(fixed=False), torch.randn((1, QUERY_HEADS, WIDTH))
    for owned in (10, CAPACITY + 3):
        engine.run(1, owned=owned)
        engine.figures.flush()
        plan = engine.planner.view(1, capturing=False)
        engine.planner.fill(plan, torch.tensor([1]), torch.tensor([CONTEXT]))
        out = attend_segments(queries, engine.k, engine.v, plan.segments, layer=0, scale=1.0)
        torch.testing.assert_close(out[0], engine.attended(queries[0], 1, CONTEXT, 0))
    assert engine.tables.capacity > CAPACITY


def addresses(plan: Any) -> list[int]:
    segments = [getattr(plan.segments, name) for name in plan.segments.__slots__ if name != "num_slots"]
    return [t.data_ptr() for t in (*segments, plan.captures.window_rows_B, plan.captures.ring_B)]


class Graph:
    """One captured step of four requests, as SGLang's runner captures and replays it, on a CPU."""

    def __init__(self, engine: Engine) -> None:
        from sglang.srt.model_executor.forward_batch_info import ForwardMode

        from reasonserve.engine.attention import CellAttention

        pool = SimpleNamespace(k_cells=engine.k, v_cells=engine.v, head_dim=WIDTH)
        compressor: Any = SimpleNamespace(
            pool=pool, tables=engine.tables, windows=engine.windows, planner=engine.planner, num_heads=QUERY_HEADS
        )
        self.engine = engine
        self.attention = CellAttention(compressor)
        self.attention.init_cuda_graph_state(4, 4)
        self.fill_value = self.attention.get_cuda_graph_seq_len_fill_value()
        self.batch: Any = SimpleNamespace(
            batch_size=4,
            forward_mode=ForwardMode.DECODE,
            req_pool_indices=torch.zeros(4, dtype=torch.int64),
            seq_lens=torch.full((4,), self.fill_value),
            out_cache_loc=torch.zeros(4, dtype=torch.int64),
        )
        self.queries = torch.zeros((4, QUERY_HEADS, WIDTH))
        self.layer: Any = SimpleNamespace(layer_id=1, tp_q_head_num=QUERY_HEADS, qk_head_dim=WIDTH, scaling=1.0)
        self.attention.init_forward_metadata_out_graph(self.batch, in_capture=True)
        self.plan: Any = self.attention.forward_metadata
        with Recorded() as self.recorded:
            self.attention.init_forward_metadata_in_graph(self.batch)
            c = self.plan.captures
            engine.windows.store(1, c.window_rows_B, c.ring_B, self.queries)

    def replay(self, rows: list[int], lengths: list[int]) -> torch.Tensor:
        """Runs the recorded step for other requests; the attention kernel reads the plan by its addresses."""
        self.batch.req_pool_indices.zero_()
        self.batch.seq_lens.fill_(self.fill_value)
        self.batch.req_pool_indices[: len(rows)] = torch.tensor(rows)
        self.batch.seq_lens[: len(rows)] = torch.tensor(lengths)
        self.queries.copy_(torch.randn(self.queries.shape))
        self.attention.init_forward_metadata_out_graph(self.batch)
        self.recorded.replay()
        engine = self.engine
        return attend_segments(self.queries, engine.k, engine.v, self.plan.segments, layer=1, scale=1.0)


@imports_sglang
def test_a_captured_step_serves_other_requests_after_rounds() -> None:
    engine = Engine()
    graph = Graph(engine)
    before = addresses(graph.plan)
    engine.run(1, owned=10, window_start=22)
    engine.run(2)
    for step, (rows, lengths) in enumerate([([1, 2], [25, 12]), ([2, 1, 3, 4], [13, 26, 5, 9]), ([4], [10])]):
        if step == 1:
            engine.run(2, owned=7)
            engine.run(1, owned=20)
            engine.run(4, owned=4, window_start=8)
        engine.figures.flush()
        out = graph.replay(rows, lengths)
        assert addresses(graph.plan) == before
        assert graph.attention.forward_metadata.segments is graph.plan.segments
        for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            torch.testing.assert_close(out[i], engine.attended(graph.queries[i], row, length, 1))
        assert torch.equal(out[len(rows) :], torch.zeros_like(out[len(rows) :])), "padding attends to nothing"
        check_windows(engine, graph, rows, lengths)


def check_windows(engine: Engine, graph: Graph, rows: list[int], lengths: list[int]) -> None:
    """Who captures finds its query in its ring; all others, padding included, write to nobody's row."""
    written = {}
    for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        state = engine.states.get(row)
        if state is not None and state.window_row >= 0:
            written[state.window_row] = (length - 1 - state.window_start) % WINDOW
            place = engine.windows.queries[state.window_row, 1, written[state.window_row]]
            assert torch.equal(place, graph.queries[i])
    for window_row in range(engine.windows.nobody):
        ring = engine.windows.queries[window_row, 1].clone()
        if window_row in written:
            ring[written[window_row]] = 0
        assert not ring.any()
    engine.windows.queries.zero_()


@imports_sglang
def test_a_step_waits_until_every_layer_has_read() -> None:
    """A round of the next step writes cells and tables that the last layer of this one still reads."""
    from sglang.srt.layers.attention.base_attn_backend import SharedReadEnds
    from sglang.srt.model_executor.forward_batch_info import ForwardMode

    graph = Graph(Engine())
    assert graph.attention.shared_read_ends(ForwardMode.DECODE) is SharedReadEnds.POST_REPLAY
