"""Layer profiles on their way to the controller."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import grpc

from reasonserve.api.v1 import profile_service_pb2 as pb
from reasonserve.controller_client import admin_metadata, open_blocking_channel, read_admin_token, stubs
from reasonserve.models.fingerprint import fingerprint
from reasonserve.models.profiles import preferred_profile
from reasonserve.status import from_rpc_error

PART_BYTES = 1 << 20
CALL_TIMEOUT_S = 20.0


def parts(content: bytes) -> Iterator[pb.UploadProfileRequest]:
    """Yields the messages that carry a profile; the digest is in the first."""
    digest = hashlib.sha256(content).hexdigest()
    for start in range(0, max(len(content), 1), PART_BYTES):
        yield pb.UploadProfileRequest(sha256=digest if start == 0 else "", content=content[start : start + PART_BYTES])


def ensure_active(endpoint: str, admin_token_file: Path, model_path: Path) -> str:
    """Uploads and activates the profile shipped for a model, unless one is active for it; of two the measured one.

    Returns:
        Id of the active profile; empty when none is active and none is shipped.

    Raises:
        ReasonServeError: The controller refused.
    """
    model_fingerprint = fingerprint(model_path)
    metadata = admin_metadata(read_admin_token(admin_token_file))
    with open_blocking_channel(endpoint) as channel:
        service = stubs(channel).profiles
        try:
            listed = service.ListProfiles(pb.ListProfilesRequest(), metadata=metadata, timeout=CALL_TIMEOUT_S)
            for profile in listed.profiles:
                if profile.active and profile.model_fingerprint == model_fingerprint:
                    return str(profile.profile_id)
            if (shipped := preferred_profile(model_fingerprint)) is None:
                return ""
            uploaded = service.UploadProfile(parts(shipped.encode()), metadata=metadata, timeout=CALL_TIMEOUT_S)
            chosen = pb.ActivateProfileRequest(profile_id=uploaded.profile.profile_id)
            activated = service.ActivateProfile(chosen, metadata=metadata, timeout=CALL_TIMEOUT_S)
            return str(activated.profile.profile_id)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
