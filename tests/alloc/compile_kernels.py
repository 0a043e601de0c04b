"""Compiles every kernel to machine code of one compute capability; needs no GPU.

``python compile_kernels.py 90`` runs the launchers on CPU tensors with a driver that only names a target, and
prints operator, kernel and bytes of shared memory of each. The interpreter runs more than the compiler takes.
"""

import sys

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from reasonalloc.ops import attend, compact, keep, launch, observe, redundancy, route, score, split


class Target:
    """As much of a driver as compiling asks for."""

    def __init__(self, capability):
        self.capability = capability

    def get_current_target(self):
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def compile_only(run):
    def compiled(self, *args, grid, warmup, **kwargs):
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        assert "cubin" in kernel.asm
        print(self.fn.__module__.split(".")[-2], self.fn.__name__, kernel.metadata.shared)  # noqa: T201
        return kernel

    return compiled


def zeros(*shape, dtype=torch.int64):
    return torch.zeros(shape, dtype=dtype)


def compile_attend():
    for dtype, head_dim, heads in ((torch.bfloat16, 128, 8), (torch.float32, 96, 3)):
        queries, pool = zeros(2, 24, head_dim, dtype=dtype), zeros(2 * heads * 9, head_dim, dtype=dtype)
        attend.attend_cells(queries, pool, pool, zeros(2, heads, 900), zeros(2, heads), 0.1)
        slot_pool = pool.view(-1, heads, head_dim)
        attend.attend_slots(queries, slot_pool, slot_pool, zeros(2, 900), zeros(2), 0.1)
        segments = attend.Segments(
            slots_RN=zeros(3, 900, dtype=torch.int32),
            slot_rows_B=zeros(2),
            prefix_B=zeros(2),
            tail_start_B=zeros(2),
            tail_end_B=zeros(2),
            cells_TLHK=zeros(2, 2, heads, 9),
            owned_TLH=zeros(2, 2, heads),
            table_rows_B=zeros(2),
            num_slots=9,
        )
        attend.attend_segments(queries, pool, pool, segments, layer=1, scale=0.1)


def compile_compact():
    pool, lists = zeros(99, 128, dtype=torch.bfloat16), zeros(6, 8, 1152)
    compact.compact_cells(pool, pool, lists, zeros(6, 8), lists.bool(), lists.bool(), zeros(6), 2)


def compile_decisions():
    lists, lengths = zeros(6, 8, 1152, dtype=torch.float32), zeros(6, 8)
    keep.keep_top(lists, lengths, lengths)
    route.route_heads(lists, lengths, zeros(6), min_cells=16)
    split.split_rows(zeros(6, 32, dtype=torch.float64), zeros(6), zeros(6, 32), zeros(6, 32))


def compile_score():
    queries, keys = zeros(6, 8, 32, 128, dtype=torch.bfloat16), zeros(6, 8, 1152, 128, dtype=torch.bfloat16)
    score.rkv_score(queries, keys, zeros(6, 8), window=8)
    redundancy.mean_cosine(keys, zeros(6, 8), spare_first=True)
    for group in ("max", "max_of_means", "mean"):
        observe.window_attention(queries, keys, zeros(6, 8), window=8, scope="causal", group=group)


def main(capability):
    launch.use_kernel = lambda device: True
    driver.set_active(Target(capability))
    JITFunction.run = compile_only(JITFunction.run)
    compile_attend()
    compile_compact()
    compile_decisions()
    compile_score()


if __name__ == "__main__":
    main(int(sys.argv[1]))
