"""Which replica a request goes to; pure, ``now`` is an argument.

Prefix affinity under bounded loads. A replica may be chosen while its load stays within ``1 + imbalance`` of the
mean and a little slack (Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with Bounded Loads, SODA 2018, with
affinity in place of the hash). Among those, the ones where the tenant's lease has room come first; among those, the
one that has seen most of the prompt, and saw it first; then the least loaded one. Load is the work lately sent to a
replica, fading over ``FADE_S``: it bounds what replicas were given over time and not only what they run at an instant.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp

from reasonserve.replica.messages import ChatInput, GenerateCall, PromptInput
from reasonserve.replica.prefixes import chain

FADE_S = 30.0
SLACK_REQUESTS = 2
"""Requests of the size at hand by which any load may exceed the bound: at low load, affinity matters more."""
BLOCK_BYTES = 128
BYTES_PER_TOKEN = 4
"""For estimates only: prompts are tokenized at the replica."""
EXPECTED_BUDGET_TOKENS = 256
EXPECTED_BUFFER_TOKENS = 128
MAX_BLOCKS = 65536
"""Blocks that are remembered: 8 MiB of prompts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A replica as the router knows it.

    Attributes:
        replica_id: The replica.
        load: Work sent to it lately.
        free_slots: Slots that the tenant's lease has free there; None where it is not known.
        matched_blocks: Blocks of the prompt that it has seen.
        is_home: Whether it saw them first: requests that went elsewhere for the sake of balance do not move a prefix.
        is_suspect: Whether it failed a moment ago, or says that its engine died.
    """

    replica_id: str
    load: float
    free_slots: int | None
    matched_blocks: int
    is_home: bool = False
    is_suspect: bool = False


def rank(choices: Sequence[Choice], *, cost: float, slots: int, imbalance: float) -> list[str]:
    """Returns replica ids, best first; every one is named, for the best may turn out to be full.

    Args:
        choices: Replicas.
        cost: Work of the request, in the unit of the loads.
        slots: Slots that it is expected to take where nothing of its prompt was seen.
        imbalance: How far above the mean a load may be, as a share of it.
    """
    trusted = [c for c in choices if not c.is_suspect] or list(choices)
    mean = (sum(c.load for c in trusted) + cost) / max(1, len(trusted))
    bound = (1 + imbalance) * mean + SLACK_REQUESTS * cost

    def key(choice: Choice) -> tuple[bool, bool, bool, int, bool, float, str]:
        needed = slots - choice.matched_blocks * (BLOCK_BYTES // BYTES_PER_TOKEN)
        lacks_room = choice.free_slots is not None and choice.free_slots < needed
        above = choice.load + cost > bound
        # Above the bound the least loaded one is best, whatever it has seen.
        matched, away = (0, True) if above else (choice.matched_blocks, not choice.is_home)
        return (choice.is_suspect, above, lacks_room, -matched, away, choice.load, choice.replica_id)

    return [choice.replica_id for choice in sorted(choices, key=key)]


class SeenPrefixes:
    """Which replicas have seen which prompt blocks; the longest unused are forgotten.

    Args:
        max_blocks: Blocks that are remembered.
    """

    def __init__(self, *, max_blocks: int = MAX_BLOCKS) -> None:
        self._max_blocks = max_blocks
        self._replicas: OrderedDict[bytes, dict[str, None]] = OrderedDict()  # in the order of first sight

    def __len__(self) -> int:
        return len(self._replicas)

    def matched(self, names: Sequence[bytes]) -> dict[str, int]:
        """Returns how many blocks from a prompt's start each replica has seen; replicas with none are left out.

        The replica that saw the longest match first is the first of those with as many.
        """
        found: dict[str, int] = {}
        candidates: list[str] | None = None
        for count, name in enumerate(names, start=1):
            holders = self._replicas.get(name, {})
            candidates = [r for r in holders if candidates is None or r in candidates]
            if not candidates:
                break
            found = dict.fromkeys(candidates, count) | {r: c for r, c in found.items() if r not in candidates}
        return found

    def add(self, names: Iterable[bytes], replica_id: str) -> None:
        """Notes that a replica sees a prompt."""
        for name in names:
            self._replicas.setdefault(name, {})[replica_id] = None
            self._replicas.move_to_end(name)
        while len(self._replicas) > self._max_blocks:
            self._replicas.popitem(last=False)

    def keep(self, replica_ids: Iterable[str]) -> None:
        """Forgets all replicas but some."""
        kept = set(replica_ids)
        for name, holders in list(self._replicas.items()):
            self._replicas[name] = {r: None for r in holders if r in kept}
            if not self._replicas[name]:
                del self._replicas[name]


class FadingLoads:
    """Work sent to each replica, fading with time."""

    def __init__(self) -> None:
        self._loads: dict[str, tuple[float, float]] = {}  # (load, when)

    def of(self, replica_id: str, *, now: float) -> float:
        """Returns a replica's load."""
        load, since = self._loads.get(replica_id, (0.0, now))
        return load * exp((since - now) / FADE_S)

    def add(self, replica_id: str, cost: float, *, now: float) -> None:
        """Notes that work was sent."""
        self._loads[replica_id] = (self.of(replica_id, now=now) + cost, now)

    def keep(self, replica_ids: Sequence[str], *, now: float) -> None:
        """Forgets all replicas but some; one that is new begins at the mean, so that it is not flooded."""
        known = [self.of(r, now=now) for r in replica_ids if r in self._loads]
        mean = sum(known) / len(known) if known else 0.0
        self._loads = {r: (self.of(r, now=now) if r in self._loads else mean, now) for r in replica_ids}


class SentSlots:
    """Slots of requests that were sent to replicas since their last reports and still run."""

    def __init__(self) -> None:
        self._reports: dict[str, int] = {}
        self._sent: dict[str, dict[str, tuple[str, int]]] = {}  # replica id -> request key -> (tenant id, slots)

    def reported(self, replica_id: str, report: int) -> None:
        """Notes the number of a replica's report; a new one counts all that was sent before."""
        if self._reports.get(replica_id) != report:
            self._reports[replica_id] = report
            self._sent.pop(replica_id, None)

    def add(self, replica_id: str, key: str, tenant_id: str, slots: int) -> None:
        """Notes a request."""
        self._sent.setdefault(replica_id, {})[key] = (tenant_id, slots)

    def ended(self, replica_id: str, key: str) -> None:
        """Forgets a request that ended."""
        self._sent.get(replica_id, {}).pop(key, None)

    def of(self, replica_id: str, tenant_id: str) -> int:
        """Returns the slots of a tenant's requests."""
        return sum(slots for tenant, slots in self._sent.get(replica_id, {}).values() if tenant == tenant_id)


def prompt_blocks(call: GenerateCall) -> tuple[bytes, ...]:
    """Returns the names of a prompt's blocks; prompts of different tenants share none."""
    return chain(_prompt_bytes(call), block_bytes=BLOCK_BYTES, salt=call.tenant_id)


def expected_cost(call: GenerateCall) -> float:
    """Returns the work of a request: tokens to read and to write, as far as they can be told."""
    return len(_prompt_bytes(call)) / BYTES_PER_TOKEN + call.num_outputs * call.sampling.max_new_tokens


def expected_slots(call: GenerateCall) -> int:
    """Returns the slots that a request is expected to take."""
    budget = EXPECTED_BUDGET_TOKENS if call.kv.budget_tokens is None else call.kv.budget_tokens
    longest = call.sampling.max_new_tokens
    growth = longest if call.kv.method == "full" else min(longest, budget + EXPECTED_BUFFER_TOKENS)
    return len(_prompt_bytes(call)) // BYTES_PER_TOKEN + call.num_outputs * growth


def _prompt_bytes(call: GenerateCall) -> bytes:
    if isinstance(call.input, PromptInput):
        return call.input.text.encode()
    if isinstance(call.input, ChatInput):
        return "".join(f"{role}\n{content}\n" for role, content in call.input.messages).encode()
    return b"".join(token_id.to_bytes(BYTES_PER_TOKEN, "little", signed=True) for token_id in call.input.ids)
