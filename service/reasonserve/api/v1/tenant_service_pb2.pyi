import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Tenant(_message.Message):
    __slots__ = ("tenant_id", "display_name", "weight", "guaranteed_slots", "limit_slots", "request_budget", "etag", "keys", "queue")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    GUARANTEED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_SLOTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_BUDGET_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    display_name: str
    weight: int
    guaranteed_slots: int
    limit_slots: int
    request_budget: RequestBudget
    etag: str
    keys: _containers.RepeatedCompositeFieldContainer[TenantKey]
    queue: QueueLimits
    def __init__(self, tenant_id: _Optional[str] = ..., display_name: _Optional[str] = ..., weight: _Optional[int] = ..., guaranteed_slots: _Optional[int] = ..., limit_slots: _Optional[int] = ..., request_budget: _Optional[_Union[RequestBudget, _Mapping]] = ..., etag: _Optional[str] = ..., keys: _Optional[_Iterable[_Union[TenantKey, _Mapping]]] = ..., queue: _Optional[_Union[QueueLimits, _Mapping]] = ...) -> None: ...

class RequestBudget(_message.Message):
    __slots__ = ("min_tokens", "default_tokens", "max_tokens")
    MIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    min_tokens: int
    default_tokens: int
    max_tokens: int
    def __init__(self, min_tokens: _Optional[int] = ..., default_tokens: _Optional[int] = ..., max_tokens: _Optional[int] = ...) -> None: ...

class QueueLimits(_message.Message):
    __slots__ = ("max_requests", "max_wait")
    MAX_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_FIELD_NUMBER: _ClassVar[int]
    max_requests: int
    max_wait: _duration_pb2.Duration
    def __init__(self, max_requests: _Optional[int] = ..., max_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class TenantKey(_message.Message):
    __slots__ = ("key_id", "expire_time")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, key_id: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CreateTenantRequest(_message.Message):
    __slots__ = ("tenant", "allow_overcommit")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ALLOW_OVERCOMMIT_FIELD_NUMBER: _ClassVar[int]
    tenant: Tenant
    allow_overcommit: bool
    def __init__(self, tenant: _Optional[_Union[Tenant, _Mapping]] = ..., allow_overcommit: _Optional[bool] = ...) -> None: ...

class CreateTenantResponse(_message.Message):
    __slots__ = ("tenant", "warning")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    tenant: Tenant
    warning: str
    def __init__(self, tenant: _Optional[_Union[Tenant, _Mapping]] = ..., warning: _Optional[str] = ...) -> None: ...

class GetTenantRequest(_message.Message):
    __slots__ = ("tenant_id",)
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    def __init__(self, tenant_id: _Optional[str] = ...) -> None: ...

class GetTenantResponse(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: Tenant
    def __init__(self, tenant: _Optional[_Union[Tenant, _Mapping]] = ...) -> None: ...

class ListTenantsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListTenantsResponse(_message.Message):
    __slots__ = ("tenants",)
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    tenants: _containers.RepeatedCompositeFieldContainer[Tenant]
    def __init__(self, tenants: _Optional[_Iterable[_Union[Tenant, _Mapping]]] = ...) -> None: ...

class UpdateTenantRequest(_message.Message):
    __slots__ = ("tenant", "update_mask", "allow_overcommit")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    ALLOW_OVERCOMMIT_FIELD_NUMBER: _ClassVar[int]
    tenant: Tenant
    update_mask: _field_mask_pb2.FieldMask
    allow_overcommit: bool
    def __init__(self, tenant: _Optional[_Union[Tenant, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., allow_overcommit: _Optional[bool] = ...) -> None: ...

class UpdateTenantResponse(_message.Message):
    __slots__ = ("tenant", "warning")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    tenant: Tenant
    warning: str
    def __init__(self, tenant: _Optional[_Union[Tenant, _Mapping]] = ..., warning: _Optional[str] = ...) -> None: ...

class DeleteTenantRequest(_message.Message):
    __slots__ = ("tenant_id",)
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    def __init__(self, tenant_id: _Optional[str] = ...) -> None: ...

class DeleteTenantResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateTenantKeyRequest(_message.Message):
    __slots__ = ("tenant_id", "ttl")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    ttl: _duration_pb2.Duration
    def __init__(self, tenant_id: _Optional[str] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class CreateTenantKeyResponse(_message.Message):
    __slots__ = ("key_id", "key", "expire_time")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    key: str
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, key_id: _Optional[str] = ..., key: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RevokeTenantKeyRequest(_message.Message):
    __slots__ = ("tenant_id", "key_id")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    key_id: str
    def __init__(self, tenant_id: _Optional[str] = ..., key_id: _Optional[str] = ...) -> None: ...

class RevokeTenantKeyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResolveTenantKeyRequest(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: str
    def __init__(self, key: _Optional[str] = ...) -> None: ...

class ResolveTenantKeyResponse(_message.Message):
    __slots__ = ("tenant", "key_id", "ttl")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    tenant: Tenant
    key_id: str
    ttl: _duration_pb2.Duration
    def __init__(self, tenant: _Optional[_Union[Tenant, _Mapping]] = ..., key_id: _Optional[str] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ListTenantUsageRequest(_message.Message):
    __slots__ = ("tenant_id",)
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    def __init__(self, tenant_id: _Optional[str] = ...) -> None: ...

class ListTenantUsageResponse(_message.Message):
    __slots__ = ("usage",)
    USAGE_FIELD_NUMBER: _ClassVar[int]
    usage: _containers.RepeatedCompositeFieldContainer[TenantUsage]
    def __init__(self, usage: _Optional[_Iterable[_Union[TenantUsage, _Mapping]]] = ...) -> None: ...

class TenantUsage(_message.Message):
    __slots__ = ("tenant_id", "guaranteed_slots", "limit_slots", "leased_slots", "reserved_slots", "wanted_slots", "active_requests", "refused_requests", "replicas", "queued_requests", "squeezed_slots")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    GUARANTEED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_SLOTS_FIELD_NUMBER: _ClassVar[int]
    LEASED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    RESERVED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    WANTED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    SQUEEZED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    guaranteed_slots: int
    limit_slots: int
    leased_slots: int
    reserved_slots: int
    wanted_slots: int
    active_requests: int
    refused_requests: int
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaUsage]
    queued_requests: int
    squeezed_slots: int
    def __init__(self, tenant_id: _Optional[str] = ..., guaranteed_slots: _Optional[int] = ..., limit_slots: _Optional[int] = ..., leased_slots: _Optional[int] = ..., reserved_slots: _Optional[int] = ..., wanted_slots: _Optional[int] = ..., active_requests: _Optional[int] = ..., refused_requests: _Optional[int] = ..., replicas: _Optional[_Iterable[_Union[ReplicaUsage, _Mapping]]] = ..., queued_requests: _Optional[int] = ..., squeezed_slots: _Optional[int] = ...) -> None: ...

class ReplicaUsage(_message.Message):
    __slots__ = ("replica_id", "model", "bytes_per_slot", "leased_slots", "reserved_slots", "wanted_slots", "active_requests", "refused_requests", "queued_requests", "squeezed_slots")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_SLOT_FIELD_NUMBER: _ClassVar[int]
    LEASED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    RESERVED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    WANTED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    SQUEEZED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    model: str
    bytes_per_slot: int
    leased_slots: int
    reserved_slots: int
    wanted_slots: int
    active_requests: int
    refused_requests: int
    queued_requests: int
    squeezed_slots: int
    def __init__(self, replica_id: _Optional[str] = ..., model: _Optional[str] = ..., bytes_per_slot: _Optional[int] = ..., leased_slots: _Optional[int] = ..., reserved_slots: _Optional[int] = ..., wanted_slots: _Optional[int] = ..., active_requests: _Optional[int] = ..., refused_requests: _Optional[int] = ..., queued_requests: _Optional[int] = ..., squeezed_slots: _Optional[int] = ...) -> None: ...
