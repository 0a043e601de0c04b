import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from reasonserve.api.v1 import tenant_service_pb2 as _tenant_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LeaseRequest(_message.Message):
    __slots__ = ("replica_id", "model", "capacity_slots", "used_slots", "bytes_per_slot", "profile_id", "tenants", "applied_seq", "incremental", "report_seq")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_SLOTS_FIELD_NUMBER: _ClassVar[int]
    USED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_SLOT_FIELD_NUMBER: _ClassVar[int]
    PROFILE_ID_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    APPLIED_SEQ_FIELD_NUMBER: _ClassVar[int]
    INCREMENTAL_FIELD_NUMBER: _ClassVar[int]
    REPORT_SEQ_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    model: str
    capacity_slots: int
    used_slots: int
    bytes_per_slot: int
    profile_id: str
    tenants: _containers.RepeatedCompositeFieldContainer[TenantDemand]
    applied_seq: int
    incremental: bool
    report_seq: int
    def __init__(self, replica_id: _Optional[str] = ..., model: _Optional[str] = ..., capacity_slots: _Optional[int] = ..., used_slots: _Optional[int] = ..., bytes_per_slot: _Optional[int] = ..., profile_id: _Optional[str] = ..., tenants: _Optional[_Iterable[_Union[TenantDemand, _Mapping]]] = ..., applied_seq: _Optional[int] = ..., incremental: _Optional[bool] = ..., report_seq: _Optional[int] = ...) -> None: ...

class TenantDemand(_message.Message):
    __slots__ = ("tenant_id", "reserved_slots", "wanted_slots", "active_requests", "refused_requests", "leased_slots", "queued_requests", "squeezed_slots")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    RESERVED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    WANTED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    LEASED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    SQUEEZED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    reserved_slots: int
    wanted_slots: int
    active_requests: int
    refused_requests: int
    leased_slots: int
    queued_requests: int
    squeezed_slots: int
    def __init__(self, tenant_id: _Optional[str] = ..., reserved_slots: _Optional[int] = ..., wanted_slots: _Optional[int] = ..., active_requests: _Optional[int] = ..., refused_requests: _Optional[int] = ..., leased_slots: _Optional[int] = ..., queued_requests: _Optional[int] = ..., squeezed_slots: _Optional[int] = ...) -> None: ...

class LeaseResponse(_message.Message):
    __slots__ = ("epoch", "ttl", "tenants", "num_replicas", "seq", "incremental", "absent_tenant_ids", "report_seq")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    NUM_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    INCREMENTAL_FIELD_NUMBER: _ClassVar[int]
    ABSENT_TENANT_IDS_FIELD_NUMBER: _ClassVar[int]
    REPORT_SEQ_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    ttl: _duration_pb2.Duration
    tenants: _containers.RepeatedCompositeFieldContainer[TenantLease]
    num_replicas: int
    seq: int
    incremental: bool
    absent_tenant_ids: _containers.RepeatedScalarFieldContainer[str]
    report_seq: int
    def __init__(self, epoch: _Optional[int] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., tenants: _Optional[_Iterable[_Union[TenantLease, _Mapping]]] = ..., num_replicas: _Optional[int] = ..., seq: _Optional[int] = ..., incremental: _Optional[bool] = ..., absent_tenant_ids: _Optional[_Iterable[str]] = ..., report_seq: _Optional[int] = ...) -> None: ...

class TenantLease(_message.Message):
    __slots__ = ("tenant", "slots")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    tenant: _tenant_service_pb2.Tenant
    slots: int
    def __init__(self, tenant: _Optional[_Union[_tenant_service_pb2.Tenant, _Mapping]] = ..., slots: _Optional[int] = ...) -> None: ...
