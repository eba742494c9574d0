"""Beam search against independent references: exhaustive and greedy search on a toy vocabulary."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from captioner.lstm.beam_search import Hypotheses, beam_search
from captioner.lstm.constraints import NEG_INF
from captioner.lstm.vocabulary import BOS, EOS, PAD, SPECIAL_WORDS, UNKNOWN
from captioner.search_options import SearchOptions

WORDS = tuple(range(len(SPECIAL_WORDS), len(SPECIAL_WORDS) + 4))
VOCABULARY = len(SPECIAL_WORDS) + len(WORDS)


class ToyModel:
    """A recurrent model whose next word depends on the image and on every word before it."""

    def __init__(self, images: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randn(images, 16, generator=generator)
        self.recurrent = torch.randn(16, 16, generator=generator) / 3
        self.embedding = torch.randn(VOCABULARY, 16, generator=generator)
        self.output = torch.randn(16, VOCABULARY, generator=generator) / 2

    def start(self) -> Tensor:
        return self.images[:, None]

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(state @ self.recurrent + self.embedding[tokens])
        return (state @ self.output).log_softmax(-1), state

    def reorder(self, state: Tensor, beams: Tensor, images: Tensor | None) -> Tensor:
        state = state if images is None else state[images]
        return state.gather(1, beams[:, :, None].expand(-1, -1, state.shape[2]))

    def only(self, image: int) -> "ToyModel":
        alone = ToyModel(1)
        alone.__dict__.update(self.__dict__, images=self.images[image : image + 1])
        return alone

    def log_prob(self, image: int, words: tuple[int, ...]) -> float:
        """Return the log-probability of the words and the end of the sentence, step by step."""
        state, total = self.images[image], 0.0
        for token, following in itertools.pairwise((BOS, *words, EOS)):
            state = torch.tanh(state @ self.recurrent + self.embedding[token])
            total += float((state @ self.output).log_softmax(-1)[following])
        return total


def words_of(hypotheses: Hypotheses, image: int, rank: int = 0) -> tuple[int, ...]:
    tokens = hypotheses.tokens[image, rank].tolist()
    return tuple(tokens[: tokens.index(EOS)])


def score(log_prob: float, words: tuple[int, ...], alpha: float) -> float:
    return log_prob / ((5 + len(words) + 1) / 6) ** alpha


@pytest.mark.parametrize("alpha", [0.0, 0.7, 2.0])
def test_a_wide_beam_finds_what_exhaustive_search_finds(alpha: float) -> None:
    model, longest = ToyModel(images=8), 3
    everything = [words for n in range(longest + 1) for words in itertools.product(WORDS, repeat=n)]
    options = SearchOptions(
        beam_size=len(everything),
        min_length=0,
        max_length=longest,
        length_penalty=alpha,
        block_ngram=0,
    )
    found = beam_search(model, 8, options)
    for image in range(8):
        ranked = sorted(
            everything, key=lambda words: -score(model.log_prob(image, words), words, alpha)
        )
        assert [words_of(found, image, rank) for rank in range(10)] == ranked[:10]
        assert float(found.log_probs[image, 0]) == pytest.approx(
            model.log_prob(image, ranked[0]), abs=1e-4
        )


def test_exhaustive_search_under_constraints_agrees_too() -> None:
    model = ToyModel(images=8, seed=1)
    options = SearchOptions(
        beam_size=341, min_length=2, max_length=4, length_penalty=0.7, block_ngram=2
    )
    allowed = [
        words
        for n in range(2, 5)
        for words in itertools.product(WORDS, repeat=n)
        if len(set(itertools.pairwise(words))) == n - 1
    ]
    found = beam_search(model, 8, options)
    for image in range(8):
        best = max(allowed, key=lambda words: score(model.log_prob(image, words), words, 0.7))
        assert words_of(found, image) == best


def test_a_beam_of_one_is_greedy_search() -> None:
    model = ToyModel(images=64, seed=2)
    options = SearchOptions(beam_size=1, min_length=0, max_length=12, block_ngram=0)
    found = beam_search(model, 64, options)
    for image in range(64):
        state, token, words = model.images[image], BOS, []
        for _ in range(12):
            state = torch.tanh(state @ model.recurrent + model.embedding[token])
            logits = state @ model.output
            logits[[PAD, BOS, UNKNOWN]] = NEG_INF
            token = int(logits.argmax())
            if token == EOS:
                break
            words.append(token)
        assert words_of(found, image) == tuple(words)


def test_a_batch_finds_what_single_images_find() -> None:
    model = ToyModel(images=64, seed=3)
    options = SearchOptions(beam_size=3, min_length=1, max_length=10)
    together = beam_search(model, 64, options)
    for image in range(64):
        alone = beam_search(model.only(image), 1, options)
        assert torch.equal(alone.tokens[0], together.tokens[image])
        torch.testing.assert_close(alone.log_probs[0], together.log_probs[image])


def test_token_log_probs_are_those_of_the_tokens() -> None:
    model = ToyModel(images=16, seed=4)
    found = beam_search(model, 16, SearchOptions(beam_size=4, min_length=1, max_length=8))
    torch.testing.assert_close(found.token_log_probs.sum(-1), found.log_probs)
    for image, rank in itertools.product(range(16), range(4)):
        words = words_of(found, image, rank)
        assert float(found.log_probs[image, rank]) == pytest.approx(
            model.log_prob(image, words), abs=1e-4
        )
        assert (found.tokens[image, rank, len(words) + 1 :] == PAD).all()
        assert (found.token_log_probs[image, rank, len(words) + 1 :] == 0).all()


def test_hypotheses_are_distinct_and_ranked() -> None:
    found = beam_search(ToyModel(images=16, seed=5), 16, SearchOptions(5, 0, 8))
    assert (found.scores.diff(dim=1) <= 0).all()
    for image in range(16):
        assert len({words_of(found, image, rank) for rank in range(5)}) == 5


def test_length_limits_hold_even_if_the_model_never_ends_or_ends_at_once() -> None:
    model = ToyModel(images=4)
    endless, hasty = torch.zeros(16, VOCABULARY), torch.zeros(16, VOCABULARY)
    endless[:, EOS], hasty[:, EOS] = -100, 100
    options = SearchOptions(beam_size=3, min_length=2, max_length=5, block_ngram=0)
    step = model.step
    for bias, length in ((endless[0], 5), (hasty[0], 2)):
        model.step = lambda tokens, state, bias=bias: (  # type: ignore[method-assign]
            (step(tokens, state)[0] + bias).log_softmax(-1),
            step(tokens, state)[1],
        )
        found = beam_search(model, 4, options)
        assert [len(words_of(found, image)) for image in range(4)] == [length] * 4


@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_ngram_occurs_twice(n: int) -> None:
    model = ToyModel(images=32, seed=6)
    options = SearchOptions(beam_size=3, min_length=0, max_length=12, block_ngram=n)
    found = beam_search(model, 32, options)
    for image in range(32):
        words = words_of(found, image)
        ngrams = [words[i : i + n] for i in range(len(words) - n + 1)]
        assert len(ngrams) == len(set(ngrams))


def test_special_tokens_never_occur() -> None:
    found = beam_search(ToyModel(images=32, seed=7), 32, SearchOptions(3, 0, 12))
    assert all(set(words_of(found, image)) <= set(WORDS) for image in range(32))


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 0},
        {"min_length": 5, "max_length": 4},
        {"length_penalty": -1.0},
        {"max_length": 0},
        {"beam_size": 2.5},
        {"block_ngram": 1.5},
        {"length_penalty": math.nan},
        {"presence_weight": math.inf},
    ],
)
def test_invalid_options_are_refused_by_name(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="|".join(options)):
        SearchOptions(**options)  # type: ignore[arg-type]
