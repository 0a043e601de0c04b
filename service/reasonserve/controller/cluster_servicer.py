"""ClusterService: the cluster as last reported, and a watch over the ledger's changes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, assert_never

import grpc

from reasonserve.api.v1 import cluster_service_pb2 as pb
from reasonserve.api.v1 import cluster_service_pb2_grpc as cluster_grpc
from reasonserve.controller import records
from reasonserve.controller.core import Controller
from reasonserve.controller.records import Change, Event
from reasonserve.controller.translate import abort, answered, from_profile, from_tenant
from reasonserve.controller.usage import cluster_status
from reasonserve.errors import InvalidRequestError, UnavailableError


class ClusterServicer(cluster_grpc.ClusterServiceServicer):
    """Shows the cluster.

    Args:
        controller: The shell around the ledger.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    @answered
    async def GetClusterStatus(self, request: pb.GetClusterStatusRequest) -> pb.GetClusterStatusResponse:
        """Gets capacity, leases and use."""
        await self._controller.expire()
        return await cluster_status(self._controller.ledger, now=self._controller.now())

    async def WatchCluster(
        self, request: pb.WatchClusterRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.WatchClusterResponse]:
        """Streams the ledger's changes after a revision."""
        try:
            async with aclosing(self._responses(request.after_revision)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:
            await abort(context, error)

    async def _responses(self, seen: int) -> AsyncGenerator[pb.WatchClusterResponse, None]:
        """Yields what to send to a watcher that has seen a revision, 0 for none."""
        if seen < 0:
            raise InvalidRequestError(
                f"after_revision: given {seen}; allowed is a revision that was received, or 0.", field="after_revision"
            )
        fresh = seen == 0
        with self._controller.changes() as changed:
            while True:
                changed.clear()
                if self._controller.closing:
                    raise UnavailableError("The controller is shutting down: watch again from the last revision.")
                following = None if fresh else self._controller.changes_since(seen)
                if following is None:
                    response = await self._anew()
                    fresh, seen = False, response.revision
                    yield response
                    continue
                for change in following:
                    seen = change.revision
                    yield _from_change(change)
                if not following:
                    await changed.wait()

    async def _anew(self) -> pb.WatchClusterResponse:
        status = await cluster_status(self._controller.ledger, now=self._controller.now())
        return pb.WatchClusterResponse(revision=status.revision, status=status)


def _from_change(change: Change) -> pb.WatchClusterResponse:
    return pb.WatchClusterResponse(revision=change.revision, events=map(_from_event, change.events))


def _from_event(event: Event) -> pb.ClusterEvent:
    match event:
        case records.TenantCreated(tenant) | records.TenantUpdated(tenant):
            return pb.ClusterEvent(tenant_put=from_tenant(tenant))
        case records.TenantGone(tenant_id):
            return pb.ClusterEvent(tenant_deleted=tenant_id)
        case records.KeyPut(key):
            return pb.ClusterEvent(key_created=pb.TenantKeyRef(tenant_id=key.tenant_id, key_id=key.key_id))
        case records.KeyGone(key_id, tenant_id):
            return pb.ClusterEvent(key_revoked=pb.TenantKeyRef(tenant_id=tenant_id, key_id=key_id))
        case records.ProfilePut(profile):
            return pb.ClusterEvent(profile_put=from_profile(profile, active=False))
        case records.ProfileActive(profile):
            return pb.ClusterEvent(profile_activated=profile.profile_id)
        case records.ProfileGone(profile_id):
            return pb.ClusterEvent(profile_deleted=profile_id)
        case records.ReplicaJoined(replica_id):
            return pb.ClusterEvent(replica_joined=replica_id)
        case records.ReplicaGone(replica_id):
            return pb.ClusterEvent(replica_gone=replica_id)
        case _:
            assert_never(event)
