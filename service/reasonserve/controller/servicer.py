"""TenantService: messages to transitions of the ledger and back, nothing else."""

from __future__ import annotations

import asyncio

from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.api.v1 import tenant_service_pb2_grpc as tenant_grpc
from reasonserve.controller.core import Controller
from reasonserve.controller.keyring import Keyring
from reasonserve.controller.keys import make_key
from reasonserve.controller.ledger import Ledger
from reasonserve.controller.records import Key
from reasonserve.controller.translate import answered, from_tenant, to_expire_ns, to_tenant, to_timestamp
from reasonserve.controller.usage import all_usage, in_turns, tenant_usage
from reasonserve.errors import NotFoundError


class TenantServicer(tenant_grpc.TenantServiceServicer):
    """Tenants, budgets and keys.

    Args:
        controller: The shell around the ledger.
        keyring: Resolves tenants' keys.
    """

    def __init__(self, controller: Controller, keyring: Keyring) -> None:
        self._controller = controller
        self._keyring = keyring

    @property
    def _ledger(self) -> Ledger:
        return self._controller.ledger

    @answered
    async def CreateTenant(self, request: tenant_pb.CreateTenantRequest) -> tenant_pb.CreateTenantResponse:
        """Creates a tenant."""
        tenant, accept = to_tenant(request.tenant), request.allow_overcommit
        await self._controller.commit(lambda: self._ledger.create_tenant(tenant, allow_overcommit=accept))
        return tenant_pb.CreateTenantResponse(tenant=self._stored(tenant.tenant_id), warning=self._ledger.warning)

    @answered
    async def GetTenant(self, request: tenant_pb.GetTenantRequest) -> tenant_pb.GetTenantResponse:
        """Gets a tenant."""
        return tenant_pb.GetTenantResponse(tenant=self._stored(request.tenant_id))

    @answered
    async def ListTenants(self, request: tenant_pb.ListTenantsRequest) -> tenant_pb.ListTenantsResponse:
        """Lists all tenants by id."""
        state = self._ledger.state
        stored = [(state.tenants[t], state.keys_of(t)) for t in sorted(state.tenants)]
        return tenant_pb.ListTenantsResponse(tenants=await in_turns(lambda pair: from_tenant(*pair), stored))

    @answered
    async def UpdateTenant(self, request: tenant_pb.UpdateTenantRequest) -> tenant_pb.UpdateTenantResponse:
        """Updates the masked fields of a tenant."""
        tenant, mask, etag = to_tenant(request.tenant), list(request.update_mask.paths), request.tenant.etag
        accept = request.allow_overcommit
        await self._controller.commit(
            lambda: self._ledger.update_tenant(tenant, mask=mask, etag=etag, allow_overcommit=accept)
        )
        return tenant_pb.UpdateTenantResponse(tenant=self._stored(tenant.tenant_id), warning=self._ledger.warning)

    @answered
    async def DeleteTenant(self, request: tenant_pb.DeleteTenantRequest) -> tenant_pb.DeleteTenantResponse:
        """Deletes a tenant and its keys."""
        await self._controller.commit(lambda: self._ledger.delete_tenant(request.tenant_id))
        return tenant_pb.DeleteTenantResponse()

    @answered
    async def CreateTenantKey(self, request: tenant_pb.CreateTenantKeyRequest) -> tenant_pb.CreateTenantKeyResponse:
        """Creates a key and shows its secret, this once."""
        self._ledger.state.tenant(request.tenant_id)
        now_ns = self._controller.now_ns()
        expire_ns = to_expire_ns(request, now_ns=now_ns)
        made = await asyncio.to_thread(make_key)
        key = Key(key_id=made.key_id, tenant_id=request.tenant_id, secret_hash=made.secret_hash, expire_ns=expire_ns)
        await self._controller.commit(lambda: self._ledger.add_key(key, now_ns=now_ns))
        return tenant_pb.CreateTenantKeyResponse(key_id=made.key_id, key=made.key, expire_time=to_timestamp(expire_ns))

    @answered
    async def RevokeTenantKey(self, request: tenant_pb.RevokeTenantKeyRequest) -> tenant_pb.RevokeTenantKeyResponse:
        """Revokes a key."""
        await self._controller.commit(lambda: self._ledger.revoke_key(request.tenant_id, request.key_id))
        return tenant_pb.RevokeTenantKeyResponse()

    @answered
    async def ResolveTenantKey(self, request: tenant_pb.ResolveTenantKeyRequest) -> tenant_pb.ResolveTenantKeyResponse:
        """Resolves a key to its tenant."""
        key = await self._keyring.resolve(request.key)
        if key is None:
            raise NotFoundError("The key is unknown, revoked or expired: ask for a new one.", field="key")
        response = tenant_pb.ResolveTenantKeyResponse(tenant=self._stored(key.tenant_id), key_id=key.key_id)
        if key.expire_ns is not None:
            # A duration: the gateway's clock may show another time of day.
            response.ttl.FromNanoseconds(max(0, key.expire_ns - self._controller.now_ns()))
        return response

    @answered
    async def ListTenantUsage(self, request: tenant_pb.ListTenantUsageRequest) -> tenant_pb.ListTenantUsageResponse:
        """Lists what tenants hold and want."""
        await self._controller.expire()
        if not request.tenant_id:
            return await all_usage(self._ledger)
        tenant = self._ledger.state.tenant(request.tenant_id)
        return tenant_pb.ListTenantUsageResponse(usage=[tenant_usage(self._ledger, tenant)])

    def _stored(self, tenant_id: str) -> tenant_pb.Tenant:
        state = self._ledger.state
        return from_tenant(state.tenant(tenant_id), state.keys_of(tenant_id))
