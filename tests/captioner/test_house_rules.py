"""What a captioner answers, as the house rules let it through."""

import re
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from captioner.caption import Alternative, Caption, Word
from captioner.errors import RejectedCaption
from captioner.house_rules import HouseRules
from tests.support.hostile import HOSTILE
from tests.support.languages import SENTENCES

ANY_LANGUAGE = HouseRules(language=None)
LONG = (
    "A woman in an orange coat is squatting on a rock wall near the sea while a man in a red "
    "jacket stands next to her and looks at his telephone."
)


def mended(text: str, rules: HouseRules = ANY_LANGUAGE) -> str:
    return rules.applied(Caption(text)).text


def reason(text: str, rules: HouseRules = ANY_LANGUAGE) -> str:
    """Why a text is rejected, without the text."""
    with pytest.raises(RejectedCaption) as rejected:
        rules.applied(Caption(text))
    message = str(rejected.value)
    assert message.isprintable() and message.encode() and len(message) <= 300
    return message.removeprefix("the answer ").partition(":")[0]


@pytest.mark.parametrize(
    "text",
    [
        "A dog runs through tall grass.",
        "Dog.",
        'A red octagonal sign reading "STOP" at the corner of a snowy intersection.',
        "José and Zoë pose with their newborn at the Café Müller in Zürich.",
        "A 1967 Ford Mustang parked beside a gas pump showing $3.49 per gallon.",
        "Mt. Fuji rises above a lake; cherry blossoms frame the view.",
        "Dr. Martin Luther King Jr. speaks to a crowd at a podium.",
        "A U.S. Coast Guard boat speeds past a lighthouse.",
        "An elderly man plays chess with a boy at a park table at 3:15 p.m.",
        "A temperature display shows -5°C next to a clock at 08:30.",
        'A neon sign says "OPEN 24/7" in a diner window.',
        "A crowd holds signs reading “Climate Justice Now!” in front of city hall.",
        "A toddler (about two years old) in a striped shirt reaches for a balloon.",
        "A photographer takes a picture of a waterfall.",
        "A very very very long dog and a man in red and a man in blue.",
        "In the photo studio, a man smiles.",
        "A T-shirt printed with the hashtag #vanlife hangs on a line.",
        'A black cat sits on a stack of books titled "War and Peace" and "Emma".',
        'A sign says "Stop! Go back." on a child’s door.',
        "3 dogs run.",
        "A Yahoo! sign on a building.",
        "A table with apples, pears, etc. in a kitchen.",
        "A clock shows 5 p.m. in a city.",
        "A man points to No.1 in Version 1.2.3 of a manual at $3.49/copy.",
        "A shot of whiskey on a wooden bar.",
        "A picture of health, a man jogs along a beach.",
        "A photo of a ship hangs above a bed.",
        "A framed photo of a couple is on a desk.",
        "A photo of a couple is on a desk.",
        "A photo of a child taped to a fridge.",
        "A picture of a boy next to a picture of a girl.",
        "Pictures of children hang on a wall.",
        "One picture shows a dog and another shows a cat.",
        "The image is a bit blurry.",
        "Sorry-looking dog on a doorstep.",
        "Sorry sign on the door of a closed shop.",
        "There is no image on the screen of the old television.",
        "There is no photo in the frame.",
        "Please share the road sign by a highway.",
        "A man in a red shirt, a man in a blue shirt and a man in a green shirt stand together.",
        "A key of an old keyboard with the letter A.",
        "iPhone on a table.",
        "一只棕色的狗在高高的草丛中奔跑。",
        "Коричневая собака бежит по траве.",
    ],
)
def test_a_caption_that_keeps_the_rules_is_the_same_object(text: str) -> None:
    caption = Caption(text, 0.5, -1.0, (-1.0,), (Alternative("A cat sits on a mat.", -2.0),))
    assert ANY_LANGUAGE.applied(caption) is caption


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("a dog", "A dog."),
        ("a child in a big city .", "A child in a big city."),
        ("A dog runs!", "A dog runs."),
        ("A dog runs...", "A dog runs."),
        ("  A dog\n runs.  ", "A dog runs."),
        ("The image shows a dog.", "A dog."),
        ("This is a photo of two kids.", "Two kids."),
        ("Image of the Golden Gate in fog", "The Golden Gate in fog."),
        ("A black and white photograph of a tennis club.", "A tennis club."),
        ("In this picture, we can see a dog.", "A dog."),
        ("In the image there is a dog.", "A dog."),
        ("The photo is a close-up of a bee.", "A close-up of a bee."),
        ("This image depicts a photo of a dog.", "A dog."),
        ("A close-up shot of a cat", "A cat."),
        ("This shot shows a crowd.", "A crowd."),
        ("A photo of a man hanging from a cliff.", "A man hanging from a cliff."),
        ("A photo of a man taking a picture of a dog.", "A man taking a picture of a dog."),
        ("A photo of a sign taped to a door.", "A sign taped to a door."),
        ("A picture of a monkey that hangs on a tree", "A monkey that hangs on a tree."),
        ("We can see people on a beach.", "People on a beach."),
        ("Wow! A dog leaps over a fence.", "A dog leaps over a fence."),
        ("Whoa ! The dog leaps .", "The dog leaps."),
        ("A dog runs.A cat sits.", "A dog runs."),
        ("a dog runs. a cat sits.", "A dog runs."),
        ("A dog runs! buy it now.", "A dog runs."),
        ("Photo: a bride and groom", "A bride and groom."),
        ("**Alt text:** A dog runs.", "A dog runs."),
        ("# Alt text\n\nA dog runs.\n\nLet me know if you want a longer one!", "A dog runs."),
        ('Sure! Here is the alt text:\n\n"A dog runs."', "A dog runs."),
        ("Here's a concise caption for the image: A dog runs.", "A dog runs."),
        ("<think>A dog? Yes.</think>\nA dog runs.", "A dog runs."),
        ("“A dog runs.”", "A dog runs."),
        ("'A dog's ball.'", "A dog's ball."),
        ('"A dog runs.', "A dog runs."),
        ('A sign reads "STOP."', 'A sign reads "STOP".'),
        ('A sign reads " STOP "', 'A sign reads "STOP".'),
        ('A wall reads " WHERE ARE YOU " ?', 'A wall reads "WHERE ARE YOU".'),
        ("- A dog runs.\n- A cat sits.", "A dog runs."),
        ("1. A dog runs.\n2. A cat sits.", "A dog runs."),
        ("```text\nA dog runs.\n```", "A dog runs."),
        ("A **brown** _dog_ `runs`.", "A brown dog runs."),
        ("A [brown dog](https://example.com/dog) runs.", "A brown dog runs."),
        ("<p>A <b>dog</b> runs.</p>", "A dog runs."),
        ("Fish &amp; chips on a plate.", "Fish & chips on a plate."),
        ("<pad><pad> a dog </s>", "A dog."),
        ("[CLS] a dog [SEP]", "A dog."),
        ("A dog runs 🐕✨.", "A dog runs."),
        ("A dog\u200b \u202eruns\u202c.", "A dog runs."),
        ("\x1b[31mA dog\x1b[0m\x00 runs.", "A dog runs."),
        ("Cafe\u0301 at night.", "Café at night."),
        ("Do\u0301\u0351\u036b\u0343g runs.", "Dó\u0351\u036bg runs."),
        (
            "A man sees himself in a puddle. His umbrella is torn.",
            "A man sees himself in a puddle.",
        ),
        ("Is it a duck or a rabbit? A drawing in ink.", "A drawing in ink."),
        ("一只狗在跑", "一只狗在跑。"),
        ("一只狗在跑。一只猫在睡觉。", "一只狗在跑。"),
    ],
)
def test_what_can_be_mended_is(answer: str, caption: str) -> None:
    assert mended(answer) == caption
    assert ANY_LANGUAGE.applied(made := Caption(caption)) is made


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "is no complete sentence"),
        ("...", "is no complete sentence"),
        ("42", "is no complete sentence"),
        ("A woman leaning on the", "is no complete sentence"),
        ("What is this?", "is a question"),
        ("A sign reads 'www.example.com'.", "has a web address"),
        ("A man in a statefarm.com hat.", "has a web address"),
        ("A sign says bit.ly/3xYzAb on a wall.", "has a web address"),
        ("A dog next to t.me/channel.", "has a web address"),
        ("A sign for evil.example/x on a wall.", "has a web address"),
        ("A sign for shop.example.com.au on a wall.", "has a web address"),
        ("A sign for evil.shop on a wall.", "has a web address"),
        ("A sign for evil\uff0ecom on a wall.", "has a web address"),
        ("A sign for evil\u3002com on a wall.", "has a web address"),
        ("A man points at 192.168.0.1 on a screen.", "has a web address"),
        ("A dog ftp.evil.nowhere runs.", "has a web address"),
        ("A sign with tel:+4912345 on it.", "has a web address"),
        ("A card with jo\uff20example on it.", "has an e-mail address"),
        ("Is this a dog\uff1f", "is a question"),
        ("A dog, see https://example.org/a", "has a web address"),
        ("A card with jo@example.org on it.", "has an e-mail address"),
        ("The file /home/jo/dog.jpg", "has a file path"),
        ("IMG_1234.jpg", "has a file path"),
        ("A dog <script>alert(1)</script>", "has markup or code"),
        ("A dog' onmouseover='alert(1)", "has markup or code"),
        ("{{7*7}} dogs", "has markup or code"),
        ("A <unk> on a field.", "has a special token"),
        ("a dog [UNK] a field", "has a special token"),
        ("=SUM(dogs and cats)", "begins like a formula"),
        ("a dog a dog a dog", "repeats itself"),
        ("dog dog dog dog", "repeats itself"),
        ("man on a horse on a horse on a horse", "repeats itself"),
        ("狗狗跑步" * 9, "repeats itself"),
        ("I'm sorry, but I can't help with that.", "speaks of the request"),
        ("Sorry, no caption.", "speaks of the request"),
        ("Sorry but this shows nothing.", "speaks of the request"),
        ("There is no image.", "speaks of the request"),
        ("There is no image here to provide a caption for.", "speaks of the request"),
        ("There is no image attached, so I see nothing.", "speaks of the request"),
        ("Please provide the photo again.", "speaks of the request"),
        ("A dog with a ball in a park with a ball on a bench with a ball.", "repeats itself"),
        ("As an AI, I see a dog.", "speaks of the request"),
        ("Please upload an image.", "speaks of the request"),
        ("Honorificabilitudinitatibus" * 6, "has more than 125 characters and cannot be cut"),
    ],
)
def test_what_cannot_be_mended_is_rejected_with_the_rule(answer: str, why: str) -> None:
    assert reason(answer) == why


def test_the_message_says_what_came_back_in_visible_characters() -> None:
    with pytest.raises(RejectedCaption) as rejected:
        ANY_LANGUAGE.applied(Caption("Café \x1b[2J\u202e\ud800 www.example.com"))
    assert str(rejected.value) == (
        r"the answer has a web address: 'Café \x1b[2J\u202e\ud800 www.example.com'"
    )


def test_a_long_text_ends_where_a_sentence_can_end() -> None:
    assert mended(LONG) == "A woman in an orange coat is squatting on a rock wall near the sea."
    assert (
        mended(LONG, HouseRules(60, None))
        == "A woman in an orange coat is squatting on a rock wall."
    )
    assert mended(LONG, HouseRules(200, None)) == LONG
    assert "cannot be cut" in reason("A very " + "very, " * 30 + "large dog.", HouseRules(60, None))


def test_alternatives_keep_the_rules_too_or_are_left_out() -> None:
    answers = (
        "the image shows a dog",
        "A dog.",
        "see www.example.com",
        "a cat",
        "A cat.",
        "A cow.",
    )
    caption = Caption("a dog", alternatives=tuple(Alternative(text, -1.0) for text in answers))
    kept = ANY_LANGUAGE.applied(caption).alternatives
    assert [each.text for each in kept] == ["A cat.", "A cow."]
    assert kept[1] is caption.alternatives[-1]


def test_the_words_of_a_caption_are_always_those_of_its_text() -> None:
    words = (Word("A", 0.2), Word("dog", 0.5))
    kept = Caption("A dog.", words=words, alternatives=(Alternative("a cat", -1.0),))
    assert ANY_LANGUAGE.applied(kept).words == words
    assert ANY_LANGUAGE.applied(Caption("a dog", words=words)).words == ()


def test_the_rest_of_a_mended_caption_stays() -> None:
    caption = Caption("a dog", 0.5, -1.0, (-0.5, -0.5))
    after = ANY_LANGUAGE.applied(caption)
    assert (after.confidence, after.log_prob, after.token_log_probs) == (0.5, -1.0, (-0.5, -0.5))


def test_a_caption_that_lost_words_has_no_log_probabilities() -> None:
    other = Alternative("a photo of a cat", -2.0)
    caption = Caption("a photo of a dog", 0.5, -1.0, (-0.2,) * 5, (other, Alternative("a cow", -3)))
    after = ANY_LANGUAGE.applied(caption)
    assert (after.text, after.confidence) == ("A dog.", 0.5)
    assert after.log_prob is after.token_log_probs is None
    assert after.alternatives == (Alternative("A cat.", None), Alternative("A cow.", -3))


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_in_another_language_than_the_jobs_is_rejected(language: str) -> None:
    wrong = [text for text in SENTENCES[language] if not _passes(text, HouseRules(language="en"))]
    assert len(wrong) >= 9
    own = HouseRules(language=language)
    assert all(own.applied(caption := Caption(text)) is caption for text in SENTENCES[language])
    assert not _passes("A brown dog runs through the tall grass.", own)


def test_english_with_foreign_names_and_quotations_is_english() -> None:
    rules = HouseRules(language="en")
    for text in (
        "Chef Émile Dubois plates a crème brûlée at Le Bœuf restaurant.",
        "A street market in Hà Nội with vendors selling dragon fruit.",
        "A café menu board lists espresso for €2.50 and cappuccino for €3.20.",
        'A sign in Berlin reads "Bitte nicht auf den Rasen treten" in white letters.',
        "The Japanese word 寿司 on a paper lantern.",
        "Dog.",
    ):
        assert rules.applied(caption := Caption(text)) is caption


def test_without_the_package_for_languages_the_script_counts() -> None:
    code = """if True:
        import sys
        sys.modules["py3langid"] = sys.modules["py3langid.langid"] = None
        from captioner.house_rules.language import is_in
        print(is_in("en", "Un chien court."), is_in("en", "Собака бежит."), "torch" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]


def _passes(text: str, rules: HouseRules) -> bool:
    try:
        rules.applied(Caption(text))
    except RejectedCaption:
        return False
    return True


ANY_TEXT = st.text(st.characters(exclude_categories=()))
PIECES = (
    *("a dog", " ", ". ", "\n\n", "\n", '"', "'", "“", "”", "*", "**", "_", "`", "```", "#", "- "),
    *("1. ", "> ", "<", ">", "<b>", "</s>", "<pad>", "[CLS]", "[", "](", ")", "(", "&amp;", "&lt;"),
    *("&#8238;", "e", "\u0301", "ﬁ", "ß", "\u200b", "\ud800", "\x1b[", "?", "!", "…", "。", "狗"),
    *("The image shows ", "photo of ", "Alt text: ", "Sure! ", "Here is the caption: ", "U.S. "),
    *("www.", "http://", "@", "/", "\\", "=", "+", ", ", " while ", "a", "Dr. ", "</think>", "'s"),
    *(
        "runs through the tall green grass of a large field",
        "I see ",
        "{",
        "|",
        "~~",
        ":",
        "-",
        "%",
    ),
)
ANSWERS = ANY_TEXT | st.lists(st.sampled_from(PIECES) | ANY_TEXT, max_size=30).map("".join)
FORBIDDEN = re.compile(r"[\n<>*`{}\\|]|://|\bwww\.\w|\w@\w|  |^[=+@-]|\A\s|\s\Z", re.IGNORECASE)


@settings(max_examples=300, deadline=None)
@given(ANSWERS)
@example("A dog.\u0301")
def test_any_text_becomes_one_that_keeps_every_rule_or_is_rejected(answer: str) -> None:
    try:
        text = mended(answer)
    except RejectedCaption as error:
        message = str(error)
        assert message.isprintable() and message.encode() and len(message) <= 300
        return
    assert not FORBIDDEN.search(text)
    assert text.isprintable() and text.encode()
    assert not {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} & {*map(unicodedata.category, text)}
    assert unicodedata.normalize("NFC", text) == text
    assert 2 <= len(text) <= 125
    assert any(map(str.isalpha, text))
    assert text[-1] in ".。।۔።։" and text[-2] not in ".,;:!?"
    first = re.sub(r"\A[\W_]+", "", text).split()[0]
    assert first[0] == first[0].upper() or first != first.lower()
    assert ANY_LANGUAGE.applied(caption := Caption(text)) is caption


@pytest.mark.parametrize("answer", HOSTILE)
def test_a_hostile_answer_is_mended_or_rejected(answer: str) -> None:
    rules = HouseRules(language="en")
    try:
        text = mended(answer, rules)
    except RejectedCaption as error:
        assert str(error).isprintable() and len(str(error)) <= 300
    else:
        assert not FORBIDDEN.search(text) and text.isprintable() and len(text) <= 125
