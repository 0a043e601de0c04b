"""Where each query head's queries lie before RoPE, as a profile holds it. No torch, no numpy.

TriAttention (arXiv 2604.04921) scores keys by these. RoPE turns each pair ``(x_f, x_{F+f})`` of a head, so a query is
``F`` complex numbers. Of each pair three numbers are kept: real and imaginary part of the mean, and the mean length
less the length of the mean, which is 0 where all queries point the same way.
"""

import base64
import binascii
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from reasonalloc.errors import ProfileError

NUMBERS = 3
"""Of each pair: real part and imaginary part of the centre, and the spread."""
_BYTES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryCentres:
    """Centres of a model's queries.

    Attributes:
        num_layers: L.
        num_heads: Query heads Q of each layer.
        frequencies: RoPE's angle per token, of each pair. [F]
        packed: Base64 of little-endian float16 ``[L, Q, NUMBERS, F]``.

    Raises:
        ProfileError: Sizes do not agree, or a number is not finite.
    """

    num_layers: int
    num_heads: int
    frequencies: tuple[float, ...]
    packed: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "frequencies", tuple(map(float, self.frequencies)))
        if self.num_layers < 1 or self.num_heads < 1 or not self.frequencies:
            raise ProfileError("queries has no layers, heads or frequencies; give at least one of each")
        if not all(map(math.isfinite, self.frequencies)):
            raise ProfileError(f"queries.frequencies is {self.frequencies}; give finite angles")
        count = self.num_layers * self.num_heads * NUMBERS * len(self.frequencies)
        content = self.content()
        if len(content) != count * _BYTES:
            raise ProfileError(
                f"queries.packed holds {len(content)} bytes; give {count * _BYTES} for {self.num_layers} layers of "
                f"{self.num_heads} heads with {len(self.frequencies)} frequencies"
            )
        if not all(map(math.isfinite, struct.unpack(f"<{count}e", content))):
            raise ProfileError("queries.packed holds numbers that are not finite; calibrate the model again")

    def content(self) -> bytes:
        """The packed numbers."""
        try:
            return base64.b64decode(self.packed, validate=True)
        except (binascii.Error, ValueError):
            raise ProfileError("queries.packed is not Base64; give the text that calibration wrote") from None

    @classmethod
    def pack(
        cls, num_layers: int, num_heads: int, frequencies: Sequence[float], numbers: Sequence[float]
    ) -> "QueryCentres":
        """Packs numbers ``[L, Q, NUMBERS, F]``, in this order.

        Raises:
            ProfileError: Sizes do not agree, or a number is beyond a float16.
        """
        try:
            content = struct.pack(f"<{len(numbers)}e", *numbers)
        except OverflowError:
            raise ProfileError("the queries of this model are too long for a float16; it has no centres") from None
        packed = base64.b64encode(content).decode()
        return cls(num_layers=num_layers, num_heads=num_heads, frequencies=tuple(frequencies), packed=packed)
