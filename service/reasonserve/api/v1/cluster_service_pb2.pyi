import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from reasonserve.api.v1 import profile_service_pb2 as _profile_service_pb2
from reasonserve.api.v1 import tenant_service_pb2 as _tenant_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetClusterStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetClusterStatusResponse(_message.Message):
    __slots__ = ("revision", "replicas", "tenants", "capacity_slots", "declared_capacity_slots", "warning")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_SLOTS_FIELD_NUMBER: _ClassVar[int]
    DECLARED_CAPACITY_SLOTS_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    revision: int
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaStatus]
    tenants: _containers.RepeatedCompositeFieldContainer[TenantStatus]
    capacity_slots: int
    declared_capacity_slots: int
    warning: str
    def __init__(self, revision: _Optional[int] = ..., replicas: _Optional[_Iterable[_Union[ReplicaStatus, _Mapping]]] = ..., tenants: _Optional[_Iterable[_Union[TenantStatus, _Mapping]]] = ..., capacity_slots: _Optional[int] = ..., declared_capacity_slots: _Optional[int] = ..., warning: _Optional[str] = ...) -> None: ...

class ReplicaStatus(_message.Message):
    __slots__ = ("replica_id", "model", "capacity_slots", "reserved_slots", "used_slots", "active_requests", "bytes_per_slot", "profile_id", "lease_expire_time")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_SLOTS_FIELD_NUMBER: _ClassVar[int]
    RESERVED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    USED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_SLOT_FIELD_NUMBER: _ClassVar[int]
    PROFILE_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    model: str
    capacity_slots: int
    reserved_slots: int
    used_slots: int
    active_requests: int
    bytes_per_slot: int
    profile_id: str
    lease_expire_time: _timestamp_pb2.Timestamp
    def __init__(self, replica_id: _Optional[str] = ..., model: _Optional[str] = ..., capacity_slots: _Optional[int] = ..., reserved_slots: _Optional[int] = ..., used_slots: _Optional[int] = ..., active_requests: _Optional[int] = ..., bytes_per_slot: _Optional[int] = ..., profile_id: _Optional[str] = ..., lease_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class TenantStatus(_message.Message):
    __slots__ = ("tenant_id", "reserved_slots", "leased_slots", "guaranteed_slots", "limit_slots", "active_requests", "refused_requests")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    RESERVED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    LEASED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    GUARANTEED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_SLOTS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    reserved_slots: int
    leased_slots: int
    guaranteed_slots: int
    limit_slots: int
    active_requests: int
    refused_requests: int
    def __init__(self, tenant_id: _Optional[str] = ..., reserved_slots: _Optional[int] = ..., leased_slots: _Optional[int] = ..., guaranteed_slots: _Optional[int] = ..., limit_slots: _Optional[int] = ..., active_requests: _Optional[int] = ..., refused_requests: _Optional[int] = ...) -> None: ...

class WatchClusterRequest(_message.Message):
    __slots__ = ("after_revision",)
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    after_revision: int
    def __init__(self, after_revision: _Optional[int] = ...) -> None: ...

class WatchClusterResponse(_message.Message):
    __slots__ = ("revision", "status", "events")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    revision: int
    status: GetClusterStatusResponse
    events: _containers.RepeatedCompositeFieldContainer[ClusterEvent]
    def __init__(self, revision: _Optional[int] = ..., status: _Optional[_Union[GetClusterStatusResponse, _Mapping]] = ..., events: _Optional[_Iterable[_Union[ClusterEvent, _Mapping]]] = ...) -> None: ...

class ClusterEvent(_message.Message):
    __slots__ = ("tenant_put", "tenant_deleted", "key_created", "key_revoked", "profile_put", "profile_activated", "profile_deleted", "replica_joined", "replica_gone")
    TENANT_PUT_FIELD_NUMBER: _ClassVar[int]
    TENANT_DELETED_FIELD_NUMBER: _ClassVar[int]
    KEY_CREATED_FIELD_NUMBER: _ClassVar[int]
    KEY_REVOKED_FIELD_NUMBER: _ClassVar[int]
    PROFILE_PUT_FIELD_NUMBER: _ClassVar[int]
    PROFILE_ACTIVATED_FIELD_NUMBER: _ClassVar[int]
    PROFILE_DELETED_FIELD_NUMBER: _ClassVar[int]
    REPLICA_JOINED_FIELD_NUMBER: _ClassVar[int]
    REPLICA_GONE_FIELD_NUMBER: _ClassVar[int]
    tenant_put: _tenant_service_pb2.Tenant
    tenant_deleted: str
    key_created: TenantKeyRef
    key_revoked: TenantKeyRef
    profile_put: _profile_service_pb2.Profile
    profile_activated: str
    profile_deleted: str
    replica_joined: str
    replica_gone: str
    def __init__(self, tenant_put: _Optional[_Union[_tenant_service_pb2.Tenant, _Mapping]] = ..., tenant_deleted: _Optional[str] = ..., key_created: _Optional[_Union[TenantKeyRef, _Mapping]] = ..., key_revoked: _Optional[_Union[TenantKeyRef, _Mapping]] = ..., profile_put: _Optional[_Union[_profile_service_pb2.Profile, _Mapping]] = ..., profile_activated: _Optional[str] = ..., profile_deleted: _Optional[str] = ..., replica_joined: _Optional[str] = ..., replica_gone: _Optional[str] = ...) -> None: ...

class TenantKeyRef(_message.Message):
    __slots__ = ("tenant_id", "key_id")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    key_id: str
    def __init__(self, tenant_id: _Optional[str] = ..., key_id: _Optional[str] = ...) -> None: ...
