"""Device functions that kernels of several operators share."""

import triton
import triton.language as tl

# Triton's interpreter keeps bfloat16 as integers and multiplies these; there, products are made in float32.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def dot(a, b):
    """Matrix product with float32 sums; float32 operands are not rounded to TF32."""
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def ordered_bits(x):
    """int64 0 to 2**32 - 1 in the order of float32 values; -0.0 and 0.0 are equal.

    -1.0 has bits 0xBF800000 and gives 0x407FFFFF; 1.0 has 0x3F800000 and gives 0xBF800000.
    """
    bits = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)
    # Negative floats grow with their bits; turn them round.
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64) + 2147483648
