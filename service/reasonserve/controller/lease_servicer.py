"""LeaseService: one stream per replica; reports in, leases out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from reasonserve.api.v1 import lease_service_pb2 as pb
from reasonserve.api.v1 import lease_service_pb2_grpc as lease_grpc
from reasonserve.controller.answers import Answers
from reasonserve.controller.core import Controller
from reasonserve.controller.translate import abort, to_report
from reasonserve.errors import InvalidRequestError, StaleEtagError, UnavailableError

_Context = grpc.aio.ServicerContext[Any, Any]


class LeaseServicer(lease_grpc.LeaseServiceServicer):
    """Holds the replicas' leases open.

    Args:
        controller: The shell around the ledger.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    async def Lease(self, requests: AsyncIterator[pb.LeaseRequest], context: _Context) -> None:
        """Answers each report, and unasked whenever the answer would be another."""
        try:
            # An empty stream ends well: nothing was asked for.
            if (first := await anext(requests, None)) is not None:
                await _Stream(self._controller, context, to_report(first).replica_id).run(first, requests)
        except Exception as error:
            await abort(context, error)


class _Stream:
    """One replica's stream, from its first report to its end."""

    def __init__(self, controller: Controller, context: _Context, replica_id: str) -> None:
        self._controller, self._context = controller, context
        self._replica_id = replica_id
        self._epoch = self._seq = 0
        self._answers = Answers(replica_id)
        self._busy = asyncio.Lock()

    async def run(self, first: pb.LeaseRequest, requests: AsyncIterator[pb.LeaseRequest]) -> None:
        """Runs until the replica closes its side; a report is taken once the last one is answered."""
        with self._controller.splitter.stream(self._replica_id) as news:
            tasks = [asyncio.create_task(self._answer_all(first, requests)), asyncio.create_task(self._tell(news))]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                try:
                    await asyncio.gather(*tasks, return_exceptions=True)
                finally:
                    # gRPC cancels the handler of a client that left, often only here, after its requests ended.
                    if self._epoch:
                        self._controller.close_lease(self._replica_id, self._epoch)

    async def _answer_all(self, first: pb.LeaseRequest, requests: AsyncIterator[pb.LeaseRequest]) -> None:
        request: pb.LeaseRequest | None = first
        while request is not None:
            async with self._busy:
                await self._take(request)
                await self._write()
            request = await anext(requests, None)

    async def _tell(self, news: asyncio.Event) -> None:
        """Answers unasked."""
        while True:
            await news.wait()
            news.clear()
            # Not while a report is taken: it may be given a new epoch just now.
            async with self._busy:
                self._check_open()
                if self._epoch and self._holds() and self._answers.is_news(self._controller.ledger):
                    await self._write()

    async def _write(self) -> None:
        self._check_open()
        answer = self._answers.next(self._controller.ledger, now=self._controller.now())
        # A report that is on its way may confirm what was said before a lapse.
        self._seq = answer.seq
        await self._context.write(answer)
        # What this answer took away may be waited for elsewhere.
        self._controller.splitter.request()

    async def _take(self, request: pb.LeaseRequest) -> None:
        """Renews the lease, or leases anew at the first report and after a lapse."""
        report = to_report(request)
        if report.replica_id != self._replica_id:
            raise InvalidRequestError(
                f"replica_id: given {report.replica_id!r} on the stream of {self._replica_id!r}; open one for each.",
                field="replica_id",
            )
        await self._controller.expire()
        self._check_open()
        if self._epoch and self._holds():
            self._controller.renew_lease(report, self._epoch)
        else:
            self._epoch = await self._controller.open_lease(report, seq=self._seq)
            self._answers = Answers(self._replica_id)
            await self._controller.splitter.settled()

    def _holds(self) -> bool:
        return self._controller.ledger.leases.holds(self._replica_id, self._epoch)

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
