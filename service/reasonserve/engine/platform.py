"""Lets SGLang run on any CPU.

SGLang's own CPU platform needs its compiled CPU kernels and an x86 with AMX. This one needs
torch alone, which is what tests and the local demo run on.
"""

from __future__ import annotations

import torch
from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import PlatformCapabilities, SRTPlatform


def activate() -> str | None:
    """Names the platform class where there is no accelerator; elsewhere SGLang's own platform serves."""
    if torch.accelerator.is_available():
        return None
    return "reasonserve.engine.platform:TorchCpuPlatform"


class TorchCpuPlatform(CpuDeviceMixin, SRTPlatform):
    """A CPU on which only torch's own operators run."""

    _enum = PlatformEnum.OOT
    capabilities = PlatformCapabilities(supports_triton=False)

    def get_default_attention_backend(self) -> str:
        """Returns SGLang's loop over ``scaled_dot_product_attention``."""
        return "torch_native"
