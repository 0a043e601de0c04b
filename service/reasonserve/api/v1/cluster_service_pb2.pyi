import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
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
    __slots__ = ("revision", "replicas", "tenants", "capacity_slots")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_SLOTS_FIELD_NUMBER: _ClassVar[int]
    revision: int
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaStatus]
    tenants: _containers.RepeatedCompositeFieldContainer[TenantStatus]
    capacity_slots: int
    def __init__(self, revision: _Optional[int] = ..., replicas: _Optional[_Iterable[_Union[ReplicaStatus, _Mapping]]] = ..., tenants: _Optional[_Iterable[_Union[TenantStatus, _Mapping]]] = ..., capacity_slots: _Optional[int] = ...) -> None: ...

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
