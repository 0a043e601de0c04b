"""The words of the small model's language, one token each. Standard library only.

``v7=3`` is one word: a variable bound to a digit. So whoever reads it needs that token, and not its neighbour.
"""

from __future__ import annotations

NUM_VARIABLES = 48
NUM_LABELS = 64
NUM_DIGITS = 10

PAD, BEGIN, END = "<pad>", "<bos>", "<eos>"
_PUNCTUATION = ("+", "-", "=", ";", "|", ">", "?")


def variable(number: int) -> str:
    """Returns the name of a variable, 0 to 47."""
    return f"v{number}"


def label(number: int) -> str:
    """Returns the name of a line or record, 1 to 64."""
    return f"#{number}"


def binding(number: int, digit: int) -> str:
    """Returns the word for a variable that has a value, 0 to 9."""
    return f"v{number}={digit}"


VOCABULARY: tuple[str, ...] = (
    *(PAD, BEGIN, END),
    *_PUNCTUATION,
    *(variable(number) for number in range(NUM_VARIABLES)),
    *(label(number) for number in range(1, NUM_LABELS + 1)),
    *(binding(number, digit) for number in range(NUM_VARIABLES) for digit in range(NUM_DIGITS)),
)
"""Every word, in the order of the model's token ids."""

IDS: dict[str, int] = {word: number for number, word in enumerate(VOCABULARY)}
"""The token id of each word."""


def encode(text: str) -> list[int]:
    """Returns the token ids of words with spaces between.

    Raises:
        KeyError: A word is none of the language.
    """
    return [IDS[word] for word in text.split()]


def decode(ids: list[int]) -> str:
    """Returns the words of token ids, with spaces between."""
    return " ".join(VOCABULARY[number] for number in ids)
