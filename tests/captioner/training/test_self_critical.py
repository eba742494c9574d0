"""Sampling follows the decoder; the policy gradient raises the reward."""

import torch
from torch.nn import functional

from captioner.lstm.decoder import Decoder
from captioner.lstm.model import LogitBias, WordPredictor
from captioner.lstm.vocabulary import BOS, EOS, PAD, UNKNOWN
from captioner.training.cider import CiderD
from captioner.training.data.tensors import References
from captioner.training.losses import CrossEntropy
from captioner.training.self_critical import SelfCritical, _bias_at, leave_one_out_advantage, sample

WORDS = 10
GRID = torch.zeros(2, 4, 8)
NONE = LogitBias(torch.zeros(2, WORDS), torch.zeros(WORDS))


def make_decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder(8, WORDS, hidden=16, heads=2, dropout=0.0)


def of_one(logit_bias: LogitBias) -> LogitBias:
    return logit_bias._replace(unsaid=logit_bias.unsaid[:1])


def test_samples_are_drawn_with_the_decoders_probabilities() -> None:
    decoder = make_decoder()
    torch.manual_seed(1)
    samples = sample(decoder, GRID[:1], 20_000, 1, of_one(NONE))[0]  # [B, T]
    memory = decoder.init_memory(GRID[:1])
    state = decoder.step(torch.tensor([[BOS]]), decoder.init_state(memory, 1), memory)
    logits = decoder.predict(state.language_hidden)[0, 0].detach()
    logits[[PAD, BOS, UNKNOWN]] = -torch.inf
    counted = torch.bincount(samples[:, 0], minlength=WORDS) / len(samples)
    torch.testing.assert_close(counted, logits.softmax(0), atol=0.02, rtol=0)


def test_words_with_a_bias_are_drawn_more_often_but_not_repeated() -> None:
    decoder = make_decoder()
    unsaid = torch.zeros(2, WORDS)
    unsaid[1, 7] = 20
    torch.manual_seed(1)
    samples = sample(decoder, GRID, 50, 4, LogitBias(unsaid, torch.full((WORDS,), -20.0)))
    assert (samples[1, :, 0] == 7).all() and not (samples[0, :, 0] == 7).all()
    for word in range(EOS + 1, WORDS):
        assert ((samples == word).sum(2) <= 1).all()  # repetitions are avoided


def test_the_policy_gradient_uses_the_probabilities_of_sampling() -> None:
    torch.manual_seed(4)
    decoder, grid = make_decoder(), torch.randn(2, 4, 8)
    content = torch.arange(WORDS) > EOS  # only these have a bias
    logit_bias = LogitBias(torch.randn(2, WORDS) * content, -torch.rand(WORDS) * content)
    samples = torch.tensor([[[5, 6, 5, EOS]], [[7, EOS, PAD, PAD]]])
    words = samples != PAD
    inputs = functional.pad(samples, (1, 0), value=BOS)[:, :, :-1].masked_fill(~words, PAD)
    added = _bias_at(words, inputs, logit_bias)
    logits = decoder.predict(decoder(grid, inputs)[words]) + added
    at_once = logits.log_softmax(-1).gather(1, samples[words].unsqueeze(1)).squeeze(1)
    predictor, stepwise = WordPredictor(decoder, grid, logit_bias), []
    state = predictor.start()
    for t in range(4):
        log_probs, state = predictor.step(inputs[:, :, t], state)
        stepwise.append(log_probs.gather(2, samples[:, :, t : t + 1]).squeeze(2))
    torch.testing.assert_close(at_once, torch.stack(stepwise, dim=2)[words])


def test_samples_end_once_and_are_sorted_by_length() -> None:
    torch.manual_seed(2)
    samples = sample(make_decoder(), GRID, 50, 6, NONE)
    assert samples.shape[:2] == (2, 50) and samples.shape[2] <= 7
    assert not ((samples == BOS) | (samples == UNKNOWN)).any()
    after = (samples == EOS).cumsum(2) - (samples == EOS).long() > 0
    assert (samples[after] == PAD).all() and (samples[~after] != PAD).all()
    lengths = (samples != PAD).sum(2)
    assert (lengths.diff(dim=1) >= 0).all()


def test_a_sample_is_compared_with_the_others_of_its_image() -> None:
    advantage = leave_one_out_advantage(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
    assert advantage.tolist() == [[-2.0, 2.0], [0.0, 0.0]]


def test_training_on_the_reward_alone_raises_it() -> None:
    decoder = make_decoder()
    references = References([[[5, 6, 7]], [[8, 9]]], [True, True])
    ended = [[[*ids, EOS] for ids in texts] for texts in references.ids]
    reward = CiderD(ended)
    loss = SelfCritical(
        reward,
        CrossEntropy(references, 0.0),
        samples=16,
        max_length=4,
        reward_weight=1.0,
        logit_bias=lambda _: NONE,
    )
    grid = torch.randn(2, 4, 8)
    optimizer = torch.optim.Adam(decoder.parameters(), 0.01)
    torch.manual_seed(3)
    for _ in range(150):
        optimizer.zero_grad()
        loss(decoder, grid, [0, 1]).backward()
        optimizer.step()
    samples = sample(decoder, grid, 20, 4, NONE)
    scores = [
        reward.score(image, [index for index in ids if index != PAD])
        for image, of_image in enumerate(samples.tolist())
        for ids in of_image
    ]
    assert sum(scores) / len(scores) > 5
