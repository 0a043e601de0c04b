"""Rows, cell tables and slots under any order of decoding, squeezes, growth and endings, without SGLang's scheduler.

Every key in the pool says whose it is (request, layer, head, true position), so a cell that was moved to a wrong
place, lost or read by a stranger is seen.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonserve.engine.cells import CellLayout
from reasonserve.engine.compressor import Compressor
from reasonserve.engine.pressure import relieve
from reasonserve.engine.ranks import RankAgreement
from reasonserve.engine.settings import EngineSettings
from reasonserve.kv import KvRequest

LAYERS, HEADS, QUERY_HEADS, WIDTH, SLOTS = 2, 2, 4, 8, 360
BUFFER = 24
SETTINGS = EngineSettings(window_tokens=8, squeeze_steps=8)


class SmallPool:
    """The parts of ``OneTensorPool`` that rounds use."""

    layer_num, head_num, head_dim, layout = LAYERS, HEADS, WIDTH, CellLayout(LAYERS, SLOTS, HEADS)

    def __init__(self) -> None:
        self.k_cells = torch.full((LAYERS * SLOTS * HEADS, WIDTH), -1.0)
        self.v_cells = self.k_cells.clone()


class Allocator:
    def __init__(self) -> None:
        self.free = list(range(1, SLOTS))

    def available_size(self) -> int:
        return len(self.free)


class Tree:
    """A prefix cache that keeps nothing."""

    def __init__(self, req_to_token: torch.Tensor) -> None:
        self.token_to_kv_pool_allocator = Allocator()
        self._req_to_token = req_to_token

    def evictable_size(self) -> int:
        return 0

    def free_kv_row(self, kv: Any, ranges: list[tuple[int, int]]) -> None:
        for start, end in ranges:
            self.token_to_kv_pool_allocator.free += self._req_to_token[kv.req_pool_idx, start:end].tolist()


class Request:
    """SGLang's request, as far as rounds look at it."""

    def __init__(self, number: int, prompt: int, budget: int, method: str) -> None:
        kv = KvRequest(method=method, budget_tokens=budget, buffer_tokens=BUFFER)
        self.rid, self.number, self.customized_info = str(number), number, None
        self.origin_input_ids, self.output_ids = [0] * prompt, [0]
        self.sampling_params = SimpleNamespace(
            custom_params=kv.to_custom_params(), max_new_tokens=10_000, sampling_seed=0
        )
        self.kv = SimpleNamespace(
            req_pool_idx=number, kv_allocated_len=0, kv_committed_len=0, holds_kv=True, cache_protected_len=0
        )
        self.prefix_len, self.lock, self.to_finish = 0, None, None


class World:
    def __init__(self, requests: list[Request], engine: EngineSettings = SETTINGS) -> None:
        self.pool: Any = SmallPool()
        self.row = torch.zeros((len(requests), SLOTS), dtype=torch.int32)
        self.tree: Any = Tree(self.row)
        self.compressor = Compressor(self.pool, self.row, QUERY_HEADS, engine, None, RankAgreement(None, 1))
        self.requests = requests
        self.generator = torch.Generator().manual_seed(0)
        for r in requests:
            for _ in r.origin_input_ids:
                self._store(r, r.kv.kv_allocated_len)
        self.compressor.after_prefill_layout(self.batch())

    def batch(self) -> Any:
        lengths = torch.tensor([r.kv.kv_allocated_len for r in self.requests])
        return SimpleNamespace(
            reqs=self.requests, tree_cache=self.tree, seq_lens=lengths, seq_lens_cpu=lengths, seq_lens_sum=0
        )

    def _store(self, r: Request, position: int) -> int:
        slot = self.tree.token_to_kv_pool_allocator.free.pop(0)
        self.row[r.kv.req_pool_idx, r.kv.kv_allocated_len] = slot
        r.kv.kv_allocated_len += 1
        cells = self.pool.layout.cell_ids(torch.tensor([slot]))[..., 0]
        for layer in range(LAYERS):
            for head in range(HEADS):
                self.pool.k_cells[cells[layer, head]] = self.key(r, layer, head, position)
                self.pool.v_cells[cells[layer, head]] = -self.key(r, layer, head, position)
        return slot

    @staticmethod
    def key(r: Request, layer: int, head: int, position: int) -> torch.Tensor:
        noise = torch.randn(WIDTH - 1, generator=torch.Generator().manual_seed(position * 7 + head))
        return torch.cat(
            [torch.tensor([float(((r.number * LAYERS + layer) * HEADS + head) * 10_000 + position)]), noise]
        )

    def decode(self) -> None:
        """One step of every request, as SGLang does it; a request that finds no room ends."""
        batch, c = self.batch(), self.compressor
        c.run_due_rounds(batch)
        relieve(c, batch, has_queue=False)
        while self.requests and len(self.tree.token_to_kv_pool_allocator.free) < len(self.requests):
            self.end(self.requests[-1])
        c.before_decode(self.batch())
        self._capture()
        for r in self.requests:
            state = c.state_of(r)
            self._store(r, len(r.origin_input_ids) + state.output_tokens(r.kv.kv_allocated_len))
            r.output_ids.append(0)

    def _capture(self) -> None:
        """Plans the step as attention does and stores everyone's queries; the plan must say what the states say."""
        rows = torch.tensor([r.kv.req_pool_idx for r in self.requests], dtype=torch.int64)
        lengths = [r.kv.kv_allocated_len + 1 for r in self.requests]
        plan = self.compressor.planner.view(len(rows), capturing=True)
        self.compressor.planner.fill(plan, rows, torch.tensor(lengths))
        assert plan.captures is not None
        for i, s in enumerate(map(self.compressor.state_of, self.requests)):
            tail = s.pinned_slots + s.owned_slots if s.table_row >= 0 else lengths[i]
            window = s.window_row if s.window_row >= 0 else self.compressor.windows.nobody
            assert (plan.segments.tail_start_B[i], plan.captures.window_rows_B[i]) == (tail, window)
        assert int((self.compressor._figures.figures_FR[2] >= 0).sum()) == self.compressor.tables.rows_in_use
        for layer in range(LAYERS):
            queries = torch.randn((len(rows), QUERY_HEADS, WIDTH), generator=self.generator)
            self.compressor.windows.store(layer, plan.captures.window_rows_B, plan.captures.ring_B, queries)

    def end(self, r: Request) -> None:
        self.compressor.release(r)
        self.tree.free_kv_row(r.kv, [(0, r.kv.kv_allocated_len)])
        r.kv.holds_kv = False
        self.requests.remove(r)

    def check(self) -> None:
        rows = [self.row[r.kv.req_pool_idx, : r.kv.kv_allocated_len].tolist() for r in self.requests]
        slots = [slot for row in rows for slot in row] + self.tree.token_to_kv_pool_allocator.free
        assert sorted(slots) == list(range(1, SLOTS))
        for r in self.requests:
            state = self.compressor.state_of(r)
            if state.table_row >= 0:
                self._check_lists(r, state)
        held = sum(self.compressor.state_of(r).table_row >= 0 for r in self.requests)
        assert self.compressor.tables.rows_in_use == held

    def _check_lists(self, r: Request, state: Any) -> None:
        slots = self.row[r.kv.req_pool_idx, : r.kv.kv_allocated_len]
        prompt, end = len(r.origin_input_ids), len(r.origin_input_ids) + state.owned_slots
        newest = prompt + state.output_tokens(r.kv.kv_allocated_len)
        expected = set(self.pool.layout.cell_ids(slots[prompt:end]).flatten().tolist())
        seen: list[int] = []
        for layer in range(LAYERS):
            for head in range(HEADS):
                cells = owned_cells(self.compressor, state, layer, head)
                seen += cells.tolist()
                base = ((r.number * LAYERS + layer) * HEADS + head) * 10_000
                positions = (self.pool.k_cells[cells, 0] - base).int().tolist()
                assert positions == sorted(set(positions))
                assert all(prompt <= p < newest for p in positions)
                assert torch.equal(self.pool.v_cells[cells], -self.pool.k_cells[cells])
                tail = self.pool.layout.cell_ids(slots[end:])[layer, head]
                kept = (self.pool.k_cells[tail, 0] - base).int().tolist()
                assert kept == list(range(newest - len(kept), newest))
        assert len(seen) == len(set(seen)) == state.owned_slots * LAYERS * HEADS
        assert set(seen) == expected


def owned_cells(compressor: Compressor, state: Any, layer: int, head: int) -> torch.Tensor:
    count = int(compressor.tables.owned[state.table_row, layer, head])
    row = compressor.tables.cells[state.table_row, layer, head]
    return row[:count]


ACTIONS = st.one_of(
    st.integers(1, 30).map(lambda n: ("decode", n)),
    st.tuples(st.integers(0, 2), st.integers(0, 130)).map(lambda pair: ("budget", pair)),
    st.integers(0, 2).map(lambda n: ("end", n)),
)


@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.integers(32, 120), st.sampled_from(["r-kv", "full"])), min_size=1, max_size=3
    ),
    st.lists(ACTIONS, max_size=12),
)
@settings(max_examples=40, deadline=None)
def test_every_slot_and_cell_has_one_owner(sizes: list[tuple[int, int, str]], actions: list[tuple[str, Any]]) -> None:
    world = World([Request(n, *size) for n, size in enumerate(sizes)])
    for name, value in actions:
        if name == "decode":
            for _ in range(value):
                world.decode()
                world.check()
        elif name == "budget" and value[0] < len(world.requests):
            world.compressor.set_budget(world.requests[value[0]], value[1])
        elif name == "end" and value < len(world.requests):
            world.end(world.requests[value])
        world.check()
    for r in list(world.requests):
        world.end(r)
    world.check()
    assert world.compressor.windows.rows_in_use == 0


def held(world: World, index: int = 0) -> int:
    r = world.requests[index]
    return int(r.kv.kv_allocated_len) - len(r.origin_input_ids)


def decode(world: World, steps: int) -> int:
    """Returns the most that the first request held after any of the steps."""
    most = 0
    for _ in range(steps):
        world.decode()
        world.check()
        most = max(most, held(world))
    return most


@pytest.mark.parametrize("before", [20, 100, 200], ids=["dense", "near its first round", "after rounds"])
def test_a_squeeze_comes_back_within_a_window_and_growth_reaches_what_was_admitted(before: int) -> None:
    world = World([Request(0, 5, 96, "r-kv")])
    decode(world, before)
    assert world.compressor.set_budget(world.requests[0], 40)
    decode(world, SETTINGS.window_tokens + 1)
    assert decode(world, 60) == 40 + BUFFER
    assert world.compressor.set_budget(world.requests[0], 500)
    assert decode(world, 120) == 96 + BUFFER
    assert world.compressor.state_of(world.requests[0]).squeezes == 1


def test_slots_that_a_round_frees_are_offered_to_waiting_requests_at_once() -> None:
    """SGLang closes a full batch to new requests until one of its own has left; a round makes room as well."""
    world = World([Request(0, 5, 96, "r-kv")])
    flags = []
    for _ in range(96 + 2 * BUFFER + 2):
        batch = world.batch()
        batch.batch_is_full = True
        world.compressor.run_due_rounds(batch)
        flags.append(batch.batch_is_full)
        world.decode()
    assert [step for step, is_full in enumerate(flags) if not is_full] == [96 + BUFFER, 96 + 2 * BUFFER]


def test_a_running_request_reserves_its_footprint_and_a_squeezed_one_what_its_round_waits_for() -> None:
    world = World([Request(0, 5, 96, "r-kv")])
    request = world.requests[0]
    for _ in range(200):
        decode(world, 1)
        assert held(world) + world.compressor.growth_left(request) == 96 + BUFFER
    world.compressor.set_budget(request, 40)
    most = held(world) + SETTINGS.window_tokens
    while world.compressor.state_of(request).squeezing:
        assert held(world) + world.compressor.growth_left(request) <= most
        decode(world, 1)
    assert held(world) + world.compressor.growth_left(request) == 40 + BUFFER


def test_bounded_requests_are_squeezed_before_one_has_to_go() -> None:
    """A request without a budget grows until the pool is short; its neighbours give up half of theirs, no more."""
    world = World([Request(0, 5, 96, "r-kv"), Request(1, 5, 96, "r-kv"), Request(2, 5, 0, "full")])
    states = [world.compressor.state_of(r) for r in world.requests]
    while len(world.requests) == 3:
        decode(world, 1)
        assert all(s.budget_tokens >= 48 for s in states[:2])
    assert [s.budget_tokens for s in states[:2]] == [48, 48]
    assert states[2].prompt_tokens + 1 == 6
    decode(world, 60)
    assert [s.budget_tokens for s in states[:2]] == [96, 96], "they grow back when room returns"


@pytest.mark.filterwarnings("ignore")  # of SGLang when it is first imported, for its way to end a request
def test_with_tables_that_must_not_move_a_request_that_could_outgrow_them_is_ended() -> None:
    engine = SETTINGS.model_copy(update={"table_cells": 100, "fixed_tables": True})
    world = World([Request(0, 5, 96, "r-kv"), Request(1, 5, 96, "ada-rkv")], engine)
    address = world.compressor.tables.cells.data_ptr()
    assert world.requests[0].to_finish is None
    assert "could keep 192 tokens in one kv head" in world.requests[1].to_finish.message
    decode(world, 200)
    assert world.compressor.tables.cells.data_ptr() == address
    world.end(world.requests[0])
    decode(world, 1)
