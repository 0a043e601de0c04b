"""What the split needs to know of the tenants, as arrays that grow with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from reasonserve.controller.records import Tenant
from reasonserve.controller.segments import Ints

# Beyond these a slot more or less is lost in a double; no cluster holds as many.
_MOST_SLOTS = 1 << 43
_MOST_WEIGHT = (1 << 17) - 1


class Shares:
    """Weight, guarantee and limit of each tenant by its number.

    Args:
        tenants: What to begin with.

    Attributes:
        generation: Grows when a tenant comes or goes; numbers hold for one generation.
    """

    def __init__(self, tenants: Iterable[Tenant] = ()) -> None:
        self._numbers: dict[str, int] = {}
        self._ids: list[str] = []
        self._values = np.zeros((3, 64), dtype=np.int64)
        self._all: Ints | None = None
        self.generation = 0
        for tenant in tenants:
            self.put(tenant)

    def put(self, tenant: Tenant) -> None:
        """Adds a tenant or replaces its values."""
        number = self._numbers.get(tenant.tenant_id)
        if number is None:
            number = self._numbers[tenant.tenant_id] = len(self._ids)
            self._ids.append(tenant.tenant_id)
            self._changed()
        if number >= self._values.shape[1]:
            self._values = np.pad(self._values, ((0, 0), (0, number)))
        slots = (min(tenant.guaranteed_slots, _MOST_SLOTS), min(tenant.limit_slots, _MOST_SLOTS))
        self._values[:, number] = (min(tenant.weight, _MOST_WEIGHT), *slots)

    def drop(self, tenant_id: str) -> None:
        """Forgets a tenant."""
        del self._numbers[tenant_id]
        self._changed()
        if len(self._ids) > 64 and len(self._numbers) < len(self._ids) // 2:
            self._renumber()

    def _changed(self) -> None:
        self._all = None
        self.generation += 1

    def _renumber(self) -> None:
        kept = list(self._numbers.values())
        self._values[:, : len(kept)] = self._values[:, kept]
        self._ids = list(self._numbers)
        self._numbers = {tenant_id: number for number, tenant_id in enumerate(self._ids)}

    def number(self, tenant_id: str) -> int | None:
        """Returns a tenant's number; None when there is none."""
        return self._numbers.get(tenant_id)

    def __contains__(self, tenant_id: object) -> bool:
        return tenant_id in self._numbers

    @property
    def all(self) -> Ints:
        """Numbers of all tenants, ascending."""
        if self._all is None:
            self._all = np.sort(np.fromiter(self._numbers.values(), dtype=np.int64, count=len(self._numbers)))
        return self._all

    def ids(self, numbers: Sequence[int]) -> list[str]:
        """Returns tenants' ids."""
        known = self._ids
        return [known[number] for number in numbers]

    def values(self, numbers: Ints) -> tuple[Ints, Ints, Ints]:
        """Returns weights, guarantees and limits."""
        weight, guaranteed, limit = self._values[:, numbers]
        return weight, guaranteed, limit
