"""Agreement: how far two captions say the same.

Importing this module does not import torch.
"""

from captioner.words import FUNCTION_WORDS
from captioner.vocabulary import tokenize


def agreement(one: str, other: str) -> float:
    """Return how far two captions say the same, in [0, 1]; the order does not matter.

    It is the share of their content words that both have, long words weighing more (Dice).
    """
    words = [set(tokenize(text)) - FUNCTION_WORDS for text in (one, other)]
    total = sum(len(word) for of_text in words for word in of_text)
    shared = sum(map(len, words[0] & words[1]))
    return 2 * shared / total if total else float(one == other)
