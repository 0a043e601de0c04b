"""ProfileService: uploads are collected and checked here, kept by the ledger and the store."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator

from reasonalloc.errors import ProfileError
from reasonalloc.profile import LayerProfile
from reasonserve.api.v1 import profile_service_pb2 as pb
from reasonserve.api.v1 import profile_service_pb2_grpc as profile_grpc
from reasonserve.controller.core import Controller
from reasonserve.controller.ledger import Ledger
from reasonserve.controller.records import Profile
from reasonserve.controller.translate import answered, from_profile
from reasonserve.errors import InvalidRequestError

MAX_PART_BYTES = 1 << 20
MAX_PROFILE_BYTES = 16 << 20


class ProfileServicer(profile_grpc.ProfileServiceServicer):
    """Layer profiles.

    Args:
        controller: The shell around the ledger.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    @property
    def _ledger(self) -> Ledger:
        return self._controller.ledger

    @answered
    async def UploadProfile(self, parts: AsyncIterator[pb.UploadProfileRequest]) -> pb.UploadProfileResponse:
        """Uploads a profile in parts."""
        content = await _collect(parts)
        profile = await asyncio.to_thread(_check, content)
        await self._controller.commit(lambda: self._ledger.put_profile(profile, content))
        return pb.UploadProfileResponse(profile=self._stored(profile.profile_id))

    @answered
    async def GetProfile(self, request: pb.GetProfileRequest) -> pb.GetProfileResponse:
        """Gets a profile with its content."""
        state = self._ledger.state
        if bool(request.profile_id) == bool(request.model_fingerprint):
            raise InvalidRequestError(
                "profile_id, model_fingerprint: given both or none; exactly one is required.", field="profile_id"
            )
        by_id = bool(request.profile_id)
        profile = state.profile(request.profile_id) if by_id else state.active_profile(request.model_fingerprint)
        content = await self._controller.profile_content(profile.profile_id)
        return pb.GetProfileResponse(profile=self._stored(profile.profile_id), content=content)

    @answered
    async def ListProfiles(self, request: pb.ListProfilesRequest) -> pb.ListProfilesResponse:
        """Lists profiles, newest first."""
        profiles = self._ledger.state.newest_profiles()
        return pb.ListProfilesResponse(profiles=[self._stored(profile.profile_id) for profile in profiles])

    @answered
    async def ActivateProfile(self, request: pb.ActivateProfileRequest) -> pb.ActivateProfileResponse:
        """Makes a profile its model's active one."""
        await self._controller.commit(lambda: self._ledger.activate_profile(request.profile_id))
        return pb.ActivateProfileResponse(profile=self._stored(request.profile_id))

    @answered
    async def DeleteProfile(self, request: pb.DeleteProfileRequest) -> pb.DeleteProfileResponse:
        """Deletes a profile that is not active."""
        await self._controller.commit(lambda: self._ledger.delete_profile(request.profile_id))
        return pb.DeleteProfileResponse()

    def _stored(self, profile_id: str) -> pb.Profile:
        profile = self._ledger.state.profile(profile_id)
        return from_profile(profile, active=self._ledger.state.is_active(profile))


async def _collect(parts: AsyncIterator[pb.UploadProfileRequest]) -> bytes:
    """Joins the parts of an upload.

    Raises:
        InvalidRequestError: A part or the whole is too large, or the digest is missing or another's.
    """
    digest, content = "", bytearray()
    async for part in parts:
        digest = digest or part.sha256.lower()
        if len(part.content) > MAX_PART_BYTES or len(content) + len(part.content) > MAX_PROFILE_BYTES:
            raise InvalidRequestError(
                f"content: given a part of {len(part.content)} bytes after {len(content)}; allowed are parts of at "
                f"most {MAX_PART_BYTES} and {MAX_PROFILE_BYTES} in all.",
                field="content",
            )
        if not digest:
            raise InvalidRequestError("sha256: given none; the first message carries the digest.", field="sha256")
        content += part.content
    if hashlib.sha256(content).hexdigest() != digest:
        raise InvalidRequestError(
            f"sha256: given {digest[:80]!r}, which is not that of the {len(content)} bytes of content: upload again.",
            field="sha256",
        )
    return bytes(content)


def _check(content: bytes) -> Profile:
    """Reads a profile.

    Raises:
        InvalidRequestError: The content is no profile.
    """
    try:
        layers = LayerProfile.from_json(content.decode())
    except UnicodeDecodeError as error:
        raise InvalidRequestError("content: is not UTF-8; upload a profile's JSON file.", field="content") from error
    except ProfileError as error:
        raise InvalidRequestError(f"content: is no layer profile: {error}", field="content") from error
    if layers.to_json().encode() != content:
        # Engines name a profile by its canonical text; equal bytes make it the same name here.
        raise InvalidRequestError(
            "content: is not in canonical form; upload the file as calibration wrote it.", field="content"
        )
    digest = hashlib.sha256(content).hexdigest()
    return Profile(
        profile_id=digest[:12],
        sha256=digest,
        model_fingerprint=layers.model_fingerprint,
        model_name=layers.model_name,
        num_layers=layers.num_layers,
        created_ns=time.time_ns(),
    )
