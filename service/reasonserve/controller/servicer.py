"""TenantService and ClusterService: messages to transitions of the ledger and back, nothing else."""

from __future__ import annotations

import asyncio

from reasonserve.api.v1 import cluster_service_pb2 as cluster_pb
from reasonserve.api.v1 import cluster_service_pb2_grpc as cluster_grpc
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.api.v1 import tenant_service_pb2_grpc as tenant_grpc
from reasonserve.controller.core import Controller
from reasonserve.controller.keys import ParsedKey, VerifiedKeys, make_key, parse_key, verify_secret
from reasonserve.controller.leases import Replica
from reasonserve.controller.records import Key, Tenant, TenantUse
from reasonserve.controller.translate import answered, from_tenant, to_tenant, wall_ns
from reasonserve.errors import NotFoundError


class TenantServicer(tenant_grpc.TenantServiceServicer):
    """Tenants, budgets and keys.

    Args:
        controller: The shell around the ledger.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._ledger = controller.ledger
        self._verified = VerifiedKeys()

    @answered
    async def CreateTenant(self, request: tenant_pb.CreateTenantRequest) -> tenant_pb.CreateTenantResponse:
        """Creates a tenant."""
        tenant = to_tenant(request.tenant)
        await self._controller.commit(lambda: self._ledger.create_tenant(tenant))
        return tenant_pb.CreateTenantResponse(tenant=self._stored(tenant.tenant_id))

    @answered
    async def GetTenant(self, request: tenant_pb.GetTenantRequest) -> tenant_pb.GetTenantResponse:
        """Gets a tenant."""
        return tenant_pb.GetTenantResponse(tenant=self._stored(request.tenant_id))

    @answered
    async def ListTenants(self, request: tenant_pb.ListTenantsRequest) -> tenant_pb.ListTenantsResponse:
        """Lists all tenants by id."""
        return tenant_pb.ListTenantsResponse(tenants=map(self._stored, sorted(self._ledger.state.tenants)))

    @answered
    async def UpdateTenant(self, request: tenant_pb.UpdateTenantRequest) -> tenant_pb.UpdateTenantResponse:
        """Updates the masked fields of a tenant."""
        tenant, mask, etag = to_tenant(request.tenant), list(request.update_mask.paths), request.tenant.etag
        await self._controller.commit(lambda: self._ledger.update_tenant(tenant, mask=mask, etag=etag))
        return tenant_pb.UpdateTenantResponse(tenant=self._stored(tenant.tenant_id))

    @answered
    async def DeleteTenant(self, request: tenant_pb.DeleteTenantRequest) -> tenant_pb.DeleteTenantResponse:
        """Deletes a tenant and its keys."""
        await self._controller.commit(lambda: self._ledger.delete_tenant(request.tenant_id))
        return tenant_pb.DeleteTenantResponse()

    @answered
    async def CreateTenantKey(self, request: tenant_pb.CreateTenantKeyRequest) -> tenant_pb.CreateTenantKeyResponse:
        """Creates a key and shows its secret, this once."""
        self._ledger.state.tenant(request.tenant_id)
        made = await asyncio.to_thread(make_key)
        key = Key(key_id=made.key_id, tenant_id=request.tenant_id, secret_hash=made.secret_hash)
        await self._controller.commit(lambda: self._ledger.add_key(key))
        return tenant_pb.CreateTenantKeyResponse(key_id=made.key_id, key=made.key)

    @answered
    async def RevokeTenantKey(self, request: tenant_pb.RevokeTenantKeyRequest) -> tenant_pb.RevokeTenantKeyResponse:
        """Revokes a key."""
        await self._controller.commit(lambda: self._ledger.revoke_key(request.tenant_id, request.key_id))
        return tenant_pb.RevokeTenantKeyResponse()

    @answered
    async def ResolveTenantKey(self, request: tenant_pb.ResolveTenantKeyRequest) -> tenant_pb.ResolveTenantKeyResponse:
        """Resolves a key to its tenant."""
        key = await self._resolve(request.key)
        return tenant_pb.ResolveTenantKeyResponse(tenant=self._stored(key.tenant_id), key_id=key.key_id)

    async def _resolve(self, presented: str) -> Key:
        state = self._ledger.state
        key_id = self._verified.key_id(presented)
        if key_id is None:
            parsed = parse_key(presented)
            stored = state.key(parsed.key_id) if parsed else None
            if parsed and stored and await _verify(parsed, stored):
                key_id = stored.key_id
                self._verified.add(presented, key_id)
        # Looked up after the wait: the key may have been revoked meanwhile.
        key = state.key(key_id) if key_id else None
        if key is None:
            raise NotFoundError("The key is unknown or revoked: ask for a new one.", field="key")
        return key

    def _stored(self, tenant_id: str) -> tenant_pb.Tenant:
        state = self._ledger.state
        return from_tenant(state.tenant(tenant_id), state.keys_of(tenant_id))


async def _verify(parsed: ParsedKey, stored: Key) -> bool:
    """Compares a secret with its hash, off the event loop."""
    return await asyncio.to_thread(verify_secret, parsed.secret, stored.secret_hash)


class ClusterServicer(cluster_grpc.ClusterServiceServicer):
    """The cluster as last reported.

    Args:
        controller: The shell around the ledger.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._ledger = controller.ledger

    @answered
    async def GetClusterStatus(
        self, request: cluster_pb.GetClusterStatusRequest
    ) -> cluster_pb.GetClusterStatusResponse:
        """Gets capacity, leases and use."""
        await self._controller.expire()
        replicas = self._ledger.leases.replicas
        tenants = self._ledger.state.tenants
        return cluster_pb.GetClusterStatusResponse(
            revision=self._ledger.state.revision,
            replicas=[self._replica(replicas[replica_id]) for replica_id in sorted(replicas)],
            tenants=[self._tenant(tenants[tenant_id]) for tenant_id in sorted(tenants)],
            capacity_slots=sum(replica.report.capacity_slots for replica in replicas.values()),
        )

    def _replica(self, replica: Replica) -> cluster_pb.ReplicaStatus:
        report = replica.report
        message = cluster_pb.ReplicaStatus(
            replica_id=report.replica_id,
            model=report.model,
            capacity_slots=report.capacity_slots,
            reserved_slots=sum(use.reserved_slots for use in report.tenants.values()),
            used_slots=report.used_slots,
            active_requests=sum(use.active_requests for use in report.tenants.values()),
            bytes_per_slot=report.bytes_per_slot,
            profile_id=report.profile_id,
        )
        message.lease_expire_time.FromNanoseconds(wall_ns(replica.deadline_s, self._controller.now()))
        return message

    def _tenant(self, tenant: Tenant) -> cluster_pb.TenantStatus:
        replicas = self._ledger.leases.replicas.values()
        uses = [replica.report.tenants.get(tenant.tenant_id, TenantUse()) for replica in replicas]
        return cluster_pb.TenantStatus(
            tenant_id=tenant.tenant_id,
            reserved_slots=sum(use.reserved_slots for use in uses),
            leased_slots=sum(replica.leases.get(tenant.tenant_id, 0) for replica in replicas),
            guaranteed_slots=tenant.guaranteed_slots,
            limit_slots=tenant.limit_slots,
            active_requests=sum(use.active_requests for use in uses),
            refused_requests=sum(use.refused_requests for use in uses),
        )
