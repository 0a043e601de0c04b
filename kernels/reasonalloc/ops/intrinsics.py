"""What compiled programs are made of below numba's own means: 16-bit floats, an exponential, prefetches."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

LINE_BYTES = 64
"""Of a cache line."""

BITS = {torch.float32: torch.float32, torch.bfloat16: torch.uint16, torch.float16: torch.int16}
"""What a dtype is to numba, which knows no 16-bit floats: ``widen`` tells them apart by sign."""


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compiles at the first call, and keeps the result on disk where there is a folder for it."""

    def compile_(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz", "arcp"}, **options)(function)
        except RuntimeError:  # no folder that may be written
            return njit(nogil=True, fastmath={"contract", "reassoc", "nsz", "arcp"}, **options)(function)

    return compile_


@intrinsic
def prefetch(_, pool, row):
    """Has a row of a pool fetched, and waits for nothing."""

    def generate(context, builder, signature, arguments):
        array = context.make_array(pool)(context, builder, arguments[0])
        pointer_type = ir.IntType(8).as_pointer()
        fetch = builder.module.declare_intrinsic(
            "llvm.prefetch", [pointer_type], ir.FunctionType(ir.VoidType(), [pointer_type, *[ir.IntType(32)] * 3])
        )
        (stride, _) = cgutils.unpack_tuple(builder, array.strides)
        begin = builder.ptrtoint(array.data, stride.type)
        begin = builder.add(begin, builder.mul(arguments[1], stride))
        read, keep_all_levels, data = (ir.Constant(ir.IntType(32), number) for number in (0, 3, 1))
        zero, line = stride.type(0), stride.type(LINE_BYTES)
        with cgutils.for_range_slice(builder, zero, stride, line, intp=stride.type) as (at, _):
            address = builder.inttoptr(builder.add(begin, at), pointer_type)
            builder.call(fetch, (address, read, keep_all_levels, data))
        return context.get_dummy_value()

    return types.void(pool, types.intp), generate


@intrinsic
def _bits_to_float(_, bits):
    """The float32 of an integer's lowest 32 bits; numba's integers grow when they are shifted."""

    def generate(context, builder, signature, arguments):
        lowest = arguments[0] if bits.bitwidth == 32 else builder.trunc(arguments[0], ir.IntType(32))
        return builder.bitcast(lowest, ir.FloatType())

    return types.float32(bits), generate


@intrinsic
def _half_to_float(_, bits):
    """The float32 of a float16's bits."""

    def generate(context, builder, signature, arguments):
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(bits), generate


def widen(value):
    """The float32 of a float32, of a bfloat16's bits (unsigned) or of a float16's (signed)."""
    raise NotImplementedError


@overload(widen, inline="always")
def _(value):
    if value == types.uint16:
        return lambda value: _bits_to_float(types.uint32(value) << types.uint32(16))
    if value == types.int16:
        return lambda value: _half_to_float(value)
    return lambda value: value


@compiled()
def exp(x):
    """e to the x for x <= 0, to two units in the last place: Cody-Waite reduction and a polynomial, free of calls."""
    x = max(x, np.float32(-87.0))
    n = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1.0)
    return p * _bits_to_float((types.int32(n) + types.int32(127)) << types.int32(23))
