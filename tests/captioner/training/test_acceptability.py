"""Acceptability: a proxy for a reader's judgement."""

import pytest

from captioner.caption import Caption, Word
from captioner.training.evaluation.acceptability import consensus, is_acceptable, right_words

DOG = ["A brown dog runs on grass.", "A dog running.", "A puppy plays.", "Dogs run.", "A dog."]
CHILD = ["A girl sits.", "A small child sitting.", "A girl on a chair.", "A girl.", "Someone sits."]


def test_words_in_two_of_five_references_count_fully_whatever_their_endings() -> None:
    assert consensus(["A dog is running."], [DOG])[0] == pytest.approx(1)
    assert consensus(["The dogs ran."], [DOG])[0] < 1  # "ran" shares no stem with "run"


def test_words_in_one_of_five_references_count_half_and_in_none_nothing() -> None:
    assert consensus(["A puppy."], [DOG])[0] == pytest.approx(0.5)
    assert consensus(["A skateboard."], [DOG])[0] == 0


@pytest.mark.parametrize("others", ["A person", "A rider", "A cyclist"])
def test_general_words_support_men_and_women_alike(others: str) -> None:
    references = [[others] * 5, ["A dog"] * 5]
    assert consensus(["A man", "A dog"], references).tolist() == [1, 1]
    assert consensus(["A woman", "A dog"], references).tolist() == [1, 1]
    assert consensus(["A boy", "A girl"], [CHILD, CHILD])[0] < 1


def test_specific_words_support_general_ones() -> None:
    assert consensus(["A person."], [CHILD])[0] == pytest.approx(1)
    for kind in ("A cat.", "Two puppies.", "Some sheep."):
        assert consensus(["Animals."], [[kind] * 5])[0] == pytest.approx(1)
    assert consensus(["A woman."], [["A man."] * 5])[0] == 0
    assert consensus(["A lady."], [["A person."] * 5])[0] == 0


def test_rare_words_weigh_more() -> None:
    references = [DOG, *[["A man stands."] * 5] * 8]
    said = ["A man and a skateboard."] + ["A man."] * 8
    rare_missing = consensus(said, references)
    assert rare_missing[1] == 1
    of_dog = consensus(["A dog stands.", *said[1:]], references)[0]
    assert of_dog > 0.5  # "dog" is rarer here than "stands", and right


def test_function_words_do_not_count() -> None:
    assert consensus(["The dog in the"], [DOG])[0] == consensus(["A dog"], [DOG])[0] == 1
    assert consensus(["In the"], [DOG])[0] == 0


def test_captions_are_acceptable_from_the_threshold_on() -> None:
    captions = ["A dog runs.", "A cat on a skateboard."]
    assert is_acceptable(captions, [DOG, DOG]).tolist() == [True, False]


def test_a_word_is_right_if_one_reference_has_it_or_a_word_that_supports_it() -> None:
    said = [("Puppies", "runs", "sofa"), (), ("person", "chairs", "man")]
    captions = [Caption("A text.", words=tuple(map(Word, words))) for words in said]
    right = right_words(captions, [DOG, DOG, CHILD])
    assert right.tolist() == [True, True, False, True, True, False]


def test_with_fewer_references_a_caption_needs_less_of_their_support() -> None:
    others = [["a plane above clouds"], ["a horse in a stable"], ["a ship at sea"]]
    caption, reference = "a brown dog runs", "a dog runs across a meadow"
    many = [reference, "an animal outside", "a pet at play", "some grass", "a sunny day"]
    captions = [caption, *(texts[0] for texts in others)]
    assert is_acceptable(captions, [[reference], *others])[0]
    assert not is_acceptable(captions, [many, *others])[0]
