"""Whatever the model prefers, captions obey the constraints, and the best such caption wins."""

import itertools

import pytest
import torch
from torch import Tensor

from captioner.lstm.beam_search import beam_search
from captioner.lstm.constraints import WordRules
from captioner.lstm.vocabulary import EOS, SPECIAL_WORDS, Vocabulary, sentence, tokenize
from captioner.search_options import SearchOptions
from captioner.words import DEPICTIONS, FUNCTION_WORDS

TEXT = tokenize("a the of on with man picture image dog 's extraordinarily grass")
VOCABULARY = Vocabulary(SPECIAL_WORDS + tuple(TEXT))
RULES = WordRules.of_vocabulary(VOCABULARY, torch.device("cpu"))
IMAGES = 64


class Bigrams:
    """A model whose next word depends on the image and the word before."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        logits = 3 * torch.randn(IMAGES, len(VOCABULARY), len(VOCABULARY), generator=generator)
        self.log_probs = logits.log_softmax(-1)

    def start(self) -> Tensor:
        return torch.arange(IMAGES)

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.log_probs[state[:, None], tokens], state

    def reorder(self, state: Tensor, beams: Tensor, images: Tensor | None) -> Tensor:
        return state if images is None else state[images]


def found(seed: int, options: SearchOptions) -> list[list[str]]:
    """Return the words of every hypothesis."""
    hypotheses = beam_search(Bigrams(seed), IMAGES, options, rules=RULES)
    assert (hypotheses.scores[:, 0] > -torch.inf).all()
    existing = hypotheses.tokens[hypotheses.scores > -torch.inf].tolist()
    assert all(EOS in ids for ids in existing)
    return [VOCABULARY.decode(ids) for ids in existing]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [20, 30, 50])
def test_no_caption_is_longer_than_allowed(seed: int, limit: int) -> None:
    options = SearchOptions(max_characters=limit, length_penalty=2.0)
    longest = max(len(sentence(words)) for words in found(seed, options))
    assert limit - 10 < longest <= limit


@pytest.mark.parametrize("seed", range(5))
def test_no_caption_ends_in_a_function_word(seed: int) -> None:
    for options in (SearchOptions(), SearchOptions(max_length=4), SearchOptions(max_characters=24)):
        assert not {words[-1] for words in found(seed, options)} & FUNCTION_WORDS


@pytest.mark.parametrize("seed", range(5))
def test_no_caption_opens_with_a_picture_of(seed: int) -> None:
    for words in found(seed, SearchOptions(min_length=5)):
        opening = list(itertools.pairwise(words))[:4]
        assert not any(first in DEPICTIONS and second == "of" for first, second in opening)


def test_a_wide_beam_finds_the_best_caption_that_obeys_the_constraints() -> None:
    model = Bigrams(seed=9)
    options = SearchOptions(2000, 1, 3, max_characters=22, length_penalty=0.7, block_ngram=2)
    hypotheses = beam_search(model, IMAGES, options, rules=RULES)
    everything = [words for n in (1, 2, 3) for words in itertools.product(TEXT, repeat=n)]
    allowed = [words for words in everything if keeps_the_rules(words, 22)]
    for image in range(0, IMAGES, 8):
        best = max(allowed, key=lambda words: score(model, image, words))
        assert tuple(VOCABULARY.decode(hypotheses.tokens[image, 0].tolist())) == best


def keeps_the_rules(words: tuple[str, ...], limit: int) -> bool:
    pairs = list(itertools.pairwise(words))
    return (
        words[-1] not in FUNCTION_WORDS
        and room_taken(words) + len(".") <= limit
        and not any(first in DEPICTIONS and second == "of" for first, second in pairs)
        and len(pairs) == len(set(pairs))
        and reserves_room(words, limit)
    )


def room_taken(words: tuple[str, ...]) -> int:
    """Return the most characters the words can take: "a" may become "an"."""
    return len(" ".join("an" if word == "a" else word for word in words))


def reserves_room(words: tuple[str, ...], limit: int) -> bool:
    """Return whether the longest word would still fit after each function word."""
    longest = len("extraordinarily")
    return all(
        room_taken(words[: place + 1]) + len(" .") + longest <= limit
        for place, word in enumerate(words)
        if word in FUNCTION_WORDS
    )


def score(model: Bigrams, image: int, words: tuple[str, ...]) -> float:
    ids = [1, *VOCABULARY.encode(" ".join(words)), EOS]
    total = sum(float(model.log_probs[image, a, b]) for a, b in itertools.pairwise(ids))
    return total / ((5 + len(words) + 1) / 6) ** 0.7
