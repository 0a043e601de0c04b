"""The split on arrays is the plain one, slot for slot; and its work grows no faster than n log n."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonserve.controller import cells, flow, segments
from reasonserve.controller.fill import water_fill
from reasonserve.controller.split import ReplicaLoad, TenantShare, split_leases

TENANT_IDS = ["a", "b", "c", "d", "e"]
REPLICA_IDS = ["r0", "r1", "r2", "r3"]
SMALL, LARGE = st.integers(0, 60), st.integers(0, 2**31 - 1)


@st.composite
def clusters(draw):
    """Several models, replicas that name some tenants or all, lost ones, and leases from before."""
    slots = draw(st.sampled_from([SMALL, SMALL, SMALL, LARGE]))
    tenants = {}
    for tenant_id in TENANT_IDS[: draw(st.integers(1, 5))]:
        guaranteed = draw(slots)
        weight = draw(st.integers(1, 5) | st.just(100_000))
        tenants[tenant_id] = TenantShare(weight=weight, guaranteed=guaranteed, limit=guaranteed + draw(slots))
    by_tenant = st.dictionaries(st.sampled_from([*tenants, "deleted"]), slots, max_size=5)
    known = by_tenant.map(lambda uses: {t: n for t, n in uses.items() if t != "deleted"})
    replicas = {
        r: ReplicaLoad(
            capacity=max(1, draw(slots)),
            model=draw(st.sampled_from(["m0", "m0", "m1"])),
            reserved=draw(by_tenant),
            wanted=draw(by_tenant),
            named=draw(st.none() | st.sets(st.sampled_from([*tenants]))),
            held=draw(st.none() | st.none() | known),
            leased=draw(st.just({}) | known),
        )
        for r in REPLICA_IDS[: draw(st.integers(1, 4))]
    }
    return tenants, replicas


def to_problem(tenants, replicas):
    """Returns a cluster as arrays, and the ids of each cell."""
    ids, loads = sorted(tenants), [replicas[r] for r in sorted(replicas)]
    number = {t: i for i, t in enumerate(ids)}
    named = [
        ids
        if load.named is None
        else sorted(number.keys() & {*load.named, *load.wanted, *(load.reserved if load.held is None else load.held)})
        for load in loads
    ]
    models = sorted({load.model for load in loads})
    at = [(i, t) for i, names in enumerate(named) for t in names]

    def ints(values):
        return np.array([*values], dtype=np.int64)

    problem = cells.Problem(
        weight=ints(tenants[t].weight for t in ids),
        guaranteed=ints(tenants[t].guaranteed for t in ids),
        limit=ints(tenants[t].limit for t in ids),
        capacity=ints(load.capacity for load in loads),
        strangers=ints(sum(n for t, n in load.reserved.items() if t not in tenants) for load in loads),
        is_open=np.array([load.held is None for load in loads]),
        model=ints(models.index(load.model) for load in loads),
        tenant=ints(number[t] for _, t in at),
        replica=ints(i for i, _ in at),
        floor=ints((loads[i].reserved if loads[i].held is None else loads[i].held).get(t, 0) for i, t in at),
        wanted=ints(loads[i].wanted.get(t, 0) for i, t in at),
        last=ints(loads[i].leased.get(t, cells.NEVER) for i, t in at),
    )
    order = sorted(replicas)
    return problem, [(order[i], t) for i, t in at]


def split_arrays(tenants, replicas):
    problem, at = to_problem(tenants, replicas)
    leases = {r: {} for r in replicas}
    for (r, t), slots in zip(at, cells.split(problem).tolist(), strict=True):
        leases[r][t] = slots
    return leases


@settings(max_examples=400)
@given(clusters())
def test_the_split_on_arrays_is_the_plain_one(cluster):
    assert split_arrays(*cluster) == split_leases(*cluster)


@given(
    st.lists(st.tuples(SMALL, SMALL, st.integers(1, 9) | st.just(100_000), st.integers(0, 3)), max_size=12), st.data()
)
def test_filling_many_segments_is_filling_each(entries, data):
    entries = sorted(entries, key=lambda entry: entry[3])
    rooms = [data.draw(st.integers(0, 200)) for _ in range(4)]
    low, high = ([f(*entry[:2]) for entry in entries] for f in (min, max))
    of, weights = [entry[3] for entry in entries], [entry[2] for entry in entries]
    ints = [np.array(values, dtype=np.int64) for values in (rooms, low, high, weights)]
    filled = segments.Segments(np.array(of, dtype=np.int64), 4).fill(*ints).tolist()
    for s, room in enumerate(rooms):
        inside = [i for i, segment in enumerate(of) if segment == s]
        plain = water_fill(room, *([values[i] for i in inside] for values in (low, high, weights)))
        assert [filled[i] for i in inside] == plain


def _crowd(rng, count, named):
    """A cluster of `count` replicas and tenants with more demand than room, unevenly spread."""
    tenants = {f"t{i:04}": TenantShare(weight=1 + i % 3, guaranteed=400, limit=2_000) for i in range(count)}
    ids = list(tenants)
    return tenants, {
        f"r{r:04}": ReplicaLoad(
            capacity=1000,
            wanted={t: int(rng.exponential(200)) for t in rng.choice(ids, named, replace=False)},
            named=(),
        )
        for r in range(count)
    }


def test_work_grows_no_faster_than_n_log_n(monkeypatch):
    """Counts what fillings and paths look at, in clusters where guarantees have to be moved."""
    looked = 0
    fill, edges = segments.Segments.fill, flow.Router.edges

    def counted_fill(self, rooms, floors, caps, weights):
        nonlocal looked
        looked += len(floors) + self.count
        return fill(self, rooms, floors, caps, weights)

    def counted_edges(self, usable, *, by_tenant):
        nonlocal looked
        looked += len(usable)
        return edges(self, usable, by_tenant=by_tenant)

    monkeypatch.setattr(segments.Segments, "fill", counted_fill)
    monkeypatch.setattr(flow.Router, "edges", counted_edges)
    work = {}
    for count in (30, 300, 1500):
        problem, at = to_problem(*_crowd(np.random.default_rng(7), count, 8))
        looked = 0
        leases = cells.split(problem)
        assert leases.sum() <= 1000 * count
        work[len(at)] = looked / (len(at) * np.log2(len(at)))
    assert max(work.values()) <= 2 * min(work.values())
    assert max(work.values()) <= 20
