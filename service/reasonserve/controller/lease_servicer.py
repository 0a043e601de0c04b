"""LeaseService: one stream per replica; reports in, leases out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from reasonserve.api.v1 import lease_service_pb2 as pb
from reasonserve.api.v1 import lease_service_pb2_grpc as lease_grpc
from reasonserve.controller.core import Controller
from reasonserve.controller.translate import abort, from_tenant, to_report
from reasonserve.errors import InvalidRequestError, StaleEtagError, UnavailableError


class LeaseServicer(lease_grpc.LeaseServiceServicer):
    """Holds the replicas' leases open.

    Args:
        controller: The shell around the ledger.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    async def Lease(
        self, requests: AsyncIterator[pb.LeaseRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.LeaseResponse]:
        """Answers each report, and unasked whenever the answer would be another."""
        stream = _Stream(self._controller)
        try:
            async with aclosing(stream.responses(requests)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:
            await abort(context, error)
        finally:
            stream.close()


class _Stream:
    """One replica's stream, from its first report to its end."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._replica_id = ""
        self._epoch = 0
        self._told: pb.LeaseResponse | None = None

    async def responses(self, requests: AsyncIterator[pb.LeaseRequest]) -> AsyncGenerator[pb.LeaseResponse, None]:
        """Yields what to send. A report is taken only once the answer to the last one is on its way."""
        reports = aiter(requests)
        with self._controller.changes() as changed:
            reading = asyncio.ensure_future(_next(reports))
            waking = asyncio.ensure_future(changed.wait())
            try:
                while True:
                    await asyncio.wait({reading, waking}, return_when=asyncio.FIRST_COMPLETED)
                    if waking.done():
                        changed.clear()
                        waking = asyncio.ensure_future(changed.wait())
                        self._check_open()
                    if reading.done():
                        request = reading.result()
                        if request is None:
                            return
                        await self._take(request)
                        self._check_open()
                        reading = asyncio.ensure_future(_next(reports))
                        yield self._answer()
                    elif self._is_news():
                        yield self._answer()
            finally:
                reading.cancel()
                waking.cancel()

    def close(self) -> None:
        """Notes that the stream ended; the lease stays until it lapses."""
        if self._epoch:
            self._controller.close_lease(self._replica_id, self._epoch)

    async def _take(self, request: pb.LeaseRequest) -> None:
        """Renews the lease, or leases anew at the first report and after a lapse."""
        report = to_report(request)
        if self._epoch and report.replica_id != self._replica_id:
            raise InvalidRequestError(
                f"replica_id: given {report.replica_id!r} on the stream of {self._replica_id!r}; open one for each.",
                field="replica_id",
            )
        await self._controller.expire()
        self._check_open()
        if self._epoch and self._controller.ledger.leases.holds(report.replica_id, self._epoch):
            self._controller.renew_lease(report, self._epoch)
        else:
            self._replica_id = report.replica_id
            self._epoch = await self._controller.open_lease(report)

    def _check_open(self) -> None:
        """Raises when the stream must end.

        Raises:
            StaleEtagError: A newer stream leases the replica.
            UnavailableError: The controller shuts down.
        """
        if self._controller.closing:
            raise UnavailableError("The controller is shutting down: open the stream again.")
        newest = self._controller.ledger.state.epochs.get(self._replica_id, 0)
        if self._epoch and newest > self._epoch:
            raise StaleEtagError(f"A newer stream leases replica {self._replica_id}: this one ends.")

    def _is_news(self) -> bool:
        """Returns whether the lease differs from what the replica was told."""
        if not self._epoch or not self._controller.ledger.leases.holds(self._replica_id, self._epoch):
            return False
        return self._told != _without_ttl(self._lease())

    def _answer(self) -> pb.LeaseResponse:
        response = self._lease()
        self._told = _without_ttl(response)
        return response

    def _lease(self) -> pb.LeaseResponse:
        """Writes the lease in force; its time to live is what is left of it."""
        ledger = self._controller.ledger
        replica = ledger.leases.replicas[self._replica_id]
        response = pb.LeaseResponse(
            epoch=replica.epoch,
            tenants=[
                pb.TenantLease(tenant=from_tenant(tenant), slots=replica.leases[tenant_id])
                for tenant_id, tenant in sorted(ledger.state.tenants.items())
            ],
            num_replicas=ledger.leases.num_replicas,
        )
        response.ttl.FromNanoseconds(max(0, round((replica.deadline_s - self._controller.now()) * 1e9)))
        return response


async def _next(reports: AsyncIterator[pb.LeaseRequest]) -> pb.LeaseRequest | None:
    """Returns the next report, or None when the replica closed its side."""
    return await anext(reports, None)


def _without_ttl(response: pb.LeaseResponse) -> pb.LeaseResponse:
    copy = pb.LeaseResponse()
    copy.CopyFrom(response)
    copy.ClearField("ttl")
    return copy
