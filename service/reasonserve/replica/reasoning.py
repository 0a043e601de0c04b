"""Reasoning apart from the answer, by SGLang's parsers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from reasonserve.errors import StartupError
from reasonserve.replica.protocol import EngineChunk


class Detector(Protocol):
    """What of SGLang's reasoning detectors is read here."""

    think_start_token: str


def load_detector(name: str) -> Detector:
    """Returns the detector of a parser.

    Raises:
        StartupError: SGLang has no such parser.
    """
    from sglang.srt.parser.reasoning_parser import ReasoningParser

    if name not in ReasoningParser.DetectorMap:
        raise StartupError(
            f"engine.reasoning_parser is {name!r}; SGLang has {', '.join(sorted(ReasoningParser.DetectorMap))}. "
            "Name one of these, or null for models that do not reason."
        )
    detector: Detector = ReasoningParser(model_type=name).detector
    return detector


def opens_reasoning(prompt_end: str, detector: Detector) -> bool:
    """Returns whether a rendered conversation ends inside a block of reasoning.

    Args:
        prompt_end: Its last characters.
        detector: Of the model's parser.
    """
    return prompt_end.rstrip().endswith(detector.think_start_token)


class ReasoningSplitter:
    """Splits one output's text as it comes.

    Args:
        parser: Name of SGLang's parser.
        in_reasoning: Whether the prompt has opened a block of reasoning.
        tokenizer: The model's.
    """

    def __init__(self, parser: str, in_reasoning: bool, tokenizer: Any) -> None:
        from sglang.srt.parser.reasoning_parser import ReasoningParser

        force = True if in_reasoning else None
        self._parser = ReasoningParser(model_type=parser, force_reasoning=force, tokenizer=tokenizer)
        self._answered = False
        self._undecided_tokens = 0
        self.reasoning_tokens = 0

    def split(self, text: str, *, tokens: int, last: bool) -> tuple[str, str]:
        """Returns what is new of the reasoning and of the answer; a part of a tag is held back.

        Tokens are counted as reasoning from the opening tag to the closing one, whole pieces of text at a time.

        Args:
            text: New text.
            tokens: How many tokens it came in.
            last: Whether the output ends here.
        """
        reasoning, answer = self._parser.parse_stream_chunk(text)
        if last:
            late_reasoning, late_answer = self._parser.parse_stream_end()
            reasoning, answer = (reasoning or "") + (late_reasoning or ""), (answer or "") + (late_answer or "")
        self._undecided_tokens += tokens
        if reasoning or (self.reasoning_tokens and not self._answered and not answer):
            self.reasoning_tokens += self._undecided_tokens
            self._undecided_tokens = 0
        if answer:
            self._answered, self._undecided_tokens = True, 0
        return reasoning or "", answer or ""


def split_chunk(splitter: ReasoningSplitter, chunk: EngineChunk) -> EngineChunk:
    """Returns an engine's chunk with its text split."""
    last = chunk.finish_reason != ""
    reasoning, answer = splitter.split(chunk.text, tokens=len(chunk.token_ids), last=last)
    return replace(chunk, reasoning=reasoning, text=answer, reasoning_tokens=splitter.reasoning_tokens)
