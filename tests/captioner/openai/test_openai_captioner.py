"""A captioner that asks a server: what it sends, what it makes of replies, and when it gives up."""

import base64
import io
import sys
import threading
import traceback
from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from captioner.budget import Budget, Prices, Spending
from captioner.caption import Caption
from captioner.captioner import Answer
from captioner.errors import (
    BudgetSpent,
    CaptionerUnavailable,
    CheckpointError,
    MissingExtraError,
    RejectedCaption,
)
from captioner.loading import load_captioner
from captioner.openai.captioner import OpenaiCaptioner
from captioner.openai.question import encode_jpeg
from captioner.options import CaptionerOptions
from tests.support.chat import Chat
from tests.support.photographs import photograph

KEY = "sk-0123456789-secret"


class Kept(dict[str, bytes]):
    """An AnswerStore in memory."""

    put = dict.__setitem__


def captioner(chat: Chat, model: str = "any", **values: Any) -> OpenaiCaptioner:
    """A captioner that asks the server; `values` are options, or a patience and a deadline."""
    times = {name: values.pop(name) for name in ("patience", "deadline") if name in values}
    options = {"base_url": chat.url, **values}
    return OpenaiCaptioner(CaptionerOptions(f"openai:{model}", **options), **times)


def ask(captioner: OpenaiCaptioner, images: int = 1) -> list[Answer]:
    """The answers about some photographs."""
    prepared = [captioner.prepare(photograph(number)) for number in range(images)]
    return captioner.caption_batch(prepared)


def sent_image(request: dict[str, Any]) -> tuple[str, Image.Image]:
    """The image of a request, and the beginning of its URL."""
    (message,) = request["body"]["messages"]
    kind, _, data = message["content"][1]["image_url"]["url"].partition(",")
    return kind, Image.open(io.BytesIO(base64.b64decode(data)))


def private_photograph() -> bytes:
    """A large photograph on its side, with a place, a profile and a comment."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    exif[0x010F] = "SECRET MAKER"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.random.default_rng(0).integers(0, 255, (900, 1600, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(
        file, "JPEG", exif=exif, icc_profile=profile, comment=b"SECRET COMMENT"
    )
    return file.getvalue()


def test_an_answer_is_a_caption_with_the_log_probabilities_of_its_tokens(chat: Chat) -> None:
    chat.behave("says A dog runs.")
    (caption,) = ask(captioner(chat))
    assert isinstance(caption, Caption)
    assert (caption.text, caption.confidence) == ("A dog runs.", None)
    assert caption.token_log_probs == pytest.approx((-0.1, -0.2, -0.3))
    assert caption.log_prob == pytest.approx(-0.6)


def test_answers_are_in_the_order_of_the_images(chat: Chat) -> None:
    asks = captioner(chat)
    answers = ask(asks, 100)
    texts = [answer.text for answer in answers if isinstance(answer, Caption)]
    assert len(set(texts)) == 100
    assert texts[7] == asks.caption(photograph(7)).text


def test_a_request_has_the_model_the_prompt_and_one_answer_of_limited_length(chat: Chat) -> None:
    ask(captioner(chat, "some/model", prompt="What is it?", api_key=KEY))
    (request,) = chat.requests()
    body = request["body"]
    assert request["authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["temperature"], body["logprobs"]) == ("some/model", 0, True)
    assert body["max_tokens"] == 100
    assert body["messages"][0]["content"][0] == {"type": "text", "text": "What is it?"}


def test_only_pixels_are_sent_upright_and_no_larger_than_allowed(chat: Chat) -> None:
    captioner(chat, send_pixels=320).caption(private_photograph())
    kind, picture = sent_image(chat.requests()[0])
    assert kind == "data:image/jpeg;base64"
    assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (180, 320))
    assert not picture.getexif()
    assert not {"exif", "icc_profile", "comment", "xmp"} & set(picture.info)
    data = base64.b64decode(
        chat.requests()[0]["body"]["messages"][0]["content"][1]["image_url"]["url"].split(",")[1]
    )
    assert b"SECRET" not in data


def test_a_small_image_is_sent_in_its_own_size(chat: Chat) -> None:
    asks = captioner(chat)
    asks.caption(photograph(0))
    assert sent_image(chat.requests()[0])[1].size == (80, 60)
    pixels = asks.prepare(photograph(0)).pixels
    assert len(encode_jpeg(pixels)) == len(encode_jpeg(pixels.copy()))


def test_requests_are_in_flight_together_but_not_too_many(chat: Chat) -> None:
    chat.behave(latency=0.3)
    assert all(isinstance(answer, Caption) for answer in ask(captioner(chat), 160))
    assert 8 < max(request["in_flight"] for request in chat.requests()) <= 32


@pytest.mark.parametrize(
    ("refused", "left"),
    [
        ("logprobs", {"temperature", "max_tokens"}),
        ("temperature", {"max_tokens", "logprobs"}),
        ("max_tokens", {"temperature", "max_completion_tokens", "logprobs"}),
        ("max_tokens temperature logprobs", {"max_completion_tokens"}),
    ],
)
def test_a_parameter_that_the_server_refuses_is_not_sent_again(
    chat: Chat, refused: str, left: set[str]
) -> None:
    chat.behave(always=f"unsupported {refused}")
    asks = captioner(chat)
    for _ in range(2):
        assert isinstance(ask(asks)[0], Caption)
    requests = chat.requests()
    assert len(requests) == 2 + len(refused.split()) == asks.budget.spent.requests
    assert set(requests[-1]["body"]) == {"model", "messages"} | left


def test_an_answer_does_not_depend_on_refused_parameters_for_its_key(chat: Chat) -> None:
    first, second = captioner(chat), captioner(chat)
    first.answers = second.answers = Kept()
    chat.behave("unsupported logprobs")
    assert ask(first)[0] == ask(second)[0]
    assert len(chat.requests()) == 2


@pytest.mark.parametrize(
    "fault", ["half", "half-json", "html", "nonsense", "choices 0", "choices 3", "null", "huge 4"]
)
def test_a_garbled_answer_is_asked_for_once_more(chat: Chat, fault: str) -> None:
    chat.behave(fault)
    assert isinstance(ask(captioner(chat))[0], Caption)
    chat.behave(fault, fault)
    (answer,) = ask(captioner(chat))
    assert isinstance(answer, RejectedCaption)
    assert len(str(answer)) < 340
    assert len(chat.requests()) == 4


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("refusal", "refused: I cannot help with that."),
        ("finish content_filter", "refused: A dog"),
        ("finish length", "cut off, because it is too long: A dog"),
        ("status 400 no picture", 'status 400: {"error": {"message": "no picture"}}'),
        ("status 413", "status 413"),
        ("status 422", "status 422"),
    ],
)
def test_a_refusal_is_not_asked_again(chat: Chat, fault: str, message: str) -> None:
    chat.behave(fault)
    (answer,) = ask(captioner(chat))
    assert isinstance(answer, RejectedCaption)
    assert str(answer).startswith(message)
    assert len(chat.requests()) == 1


@pytest.mark.parametrize(
    "fault",
    [
        "status 500",
        "status 503",
        "reset",
        "retry-after 0.2",
        "retry-at 1",
        "slow 0.1",
        "inside 503",
    ],
)
def test_trouble_that_passes_costs_only_time(chat: Chat, fault: str) -> None:
    chat.behave(*[fault] * 3)
    answers = ask(captioner(chat, deadline=1.0), 10)
    assert all(isinstance(answer, Caption) for answer in answers)
    assert len(chat.requests()) == 13


@pytest.mark.parametrize("fault", ["slow 0.2", "slow-head 0.05"])
def test_a_server_that_dribbles_is_an_outage_in_the_end(chat: Chat, fault: str) -> None:
    chat.behave(always=fault)
    (answer,) = ask(captioner(chat, deadline=0.4, patience=0.6))
    assert isinstance(answer, CaptionerUnavailable)
    assert "no answer within 0.4 s" in str(answer)


def test_an_outage_leaves_the_images_and_hardly_asks(chat: Chat) -> None:
    asks = captioner(chat, patience=1.0)
    assert isinstance(ask(asks)[0], Caption)
    chat.behave(always="status 503 overloaded")
    answers = ask(asks, 40)
    assert {type(answer) for answer in answers} == {CaptionerUnavailable}
    assert "overloaded" in str(answers[0])
    asked = len(chat.requests())
    assert asked < 35  # about one in a pause
    ask(asks, 40)
    assert len(chat.requests()) == asked + 1  # the outage goes on
    chat.behave(always="ok")
    assert all(isinstance(answer, Caption) for answer in ask(asks, 40))


def test_a_server_that_wants_to_be_paid_is_asked_by_none_who_waits(chat: Chat) -> None:
    chat.behave(always="status 402 add credit")
    answers = ask(captioner(chat), 40)
    assert {type(answer) for answer in answers} == {CaptionerUnavailable}
    assert len(chat.requests()) <= 4


def test_a_wait_that_is_too_long_is_an_outage(chat: Chat) -> None:
    chat.behave("retry-after 3600")
    (answer,) = ask(captioner(chat))
    assert isinstance(answer, CaptionerUnavailable)
    assert "asks to wait 3600 s" in str(answer)


def test_a_server_that_is_down_is_unavailable() -> None:
    (answer,) = ask(captioner(Chat(port=9), patience=0.2))
    assert isinstance(answer, CaptionerUnavailable)
    assert "http://127.0.0.1:9/v1 does not answer" in str(answer)


def test_nothing_more_is_asked_once_nobody_waits_and_what_was_is_kept(chat: Chat) -> None:
    chat.behave(latency=2.0)
    asks = captioner(chat)
    asks.answers = kept = Kept()
    asks.is_abandoned = lambda: True
    answers = ask(asks, 10)
    unasked = [str(answer) for answer in answers if not isinstance(answer, Caption)]
    assert set(unasked) == {"nobody waits for an answer"}
    assert len(kept) == 10 - len(unasked) == len(chat.requests())
    down = captioner(Chat(port=9))
    down.is_abandoned = lambda: True
    assert [str(answer) for answer in ask(down)] == ["nobody waits for an answer"]


def test_an_image_that_breaks_the_server_costs_one_caption(chat: Chat) -> None:
    chat.behave(*["status 500 out of range"] * 4)
    asks = captioner(chat, patience=6.0)
    (answer,) = ask(asks)
    assert isinstance(answer, RejectedCaption)
    assert "out of range" in str(answer)
    assert isinstance(ask(asks)[0], Caption)


def test_a_refusal_of_a_harmless_image_shows_that_the_server_works(chat: Chat) -> None:
    chat.behave(*[*["status 500"] * 4, "status 413"] * 4)
    asks = captioner(chat, patience=6.0)
    asks.budget = Budget(max_requests=20)
    (answer,) = ask(asks)
    assert isinstance(answer, RejectedCaption)
    assert asks.budget.spent.requests == 5


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("unauthorized", "refuses the key: set OPENAI_API_KEY"),
        ("status 403", "refuses the key: set OPENAI_API_KEY"),
        ("status 404", "has no model 'any'"),
        ("status 302", "set OPENAI_BASE_URL"),
        ("inside 404", "has no model 'any'"),
        ("status 400 no images, please", "none of the first 10 answers.*no images, please"),
        ("html", "none of the first 10 answers.*It works"),
        ("refusal", "none of the first 10 answers.*refused: I cannot help"),
        ("says I cannot see it.", "none of the first 10 answers.*speaks of the request"),
    ],
)
def test_a_fault_that_would_hit_every_image_is_raised(chat: Chat, fault: str, message: str) -> None:
    chat.behave(always=fault)
    with pytest.raises(CheckpointError, match=message):
        ask(captioner(chat), 30)


def test_later_refusals_concern_their_images_alone(chat: Chat) -> None:
    asks = captioner(chat)
    ask(asks)
    chat.behave(always="status 400")
    assert {type(answer) for answer in ask(asks, 30)} == {RejectedCaption}


def test_captions_that_all_break_the_house_rules_end_the_job_early(chat: Chat) -> None:
    chat.behave(always="says Visit www.example.com now.")
    asks = captioner(chat)
    asks.answers = kept = Kept()
    message = "none of the first 10 answers of .* became a caption; .*has a web address: 'Visit"
    with pytest.raises(CheckpointError, match=message):
        ask(asks, 60)
    assert len(chat.requests()) < 30
    assert not kept


def test_a_caption_among_the_first_answers_is_enough(chat: Chat) -> None:
    chat.behave(*["says Visit www.example.com now."] * 9)
    asks = captioner(chat)
    for images in (9, 1):
        ask(asks, images)
    chat.behave(always="says Visit www.example.com now.")
    assert {type(answer) for answer in ask(asks, 30)} == {RejectedCaption}


def test_the_event_loop_is_free_while_something_is_drawn(chat: Chat) -> None:
    asks = captioner(chat)
    free: list[bool] = []

    def draw(spending: Spending) -> None:
        is_free = threading.Event()
        asks._loop.call_soon_threadsafe(is_free.set)
        free.append(is_free.wait(5))

    asks.budget = Budget(max_requests=9, draw=draw)
    assert Counter(map(type, ask(asks, 12))) == {Caption: 9, BudgetSpent: 3}
    assert free == [True]


def test_no_request_is_sent_beyond_the_budget(chat: Chat) -> None:
    chat.behave(latency=0.02)
    asks = captioner(chat)
    asks.budget = Budget(max_requests=37)
    answers = ask(asks, 64)
    assert Counter(map(type, answers)) == {Caption: 37, BudgetSpent: 27}
    assert len(chat.requests()) == 37 == asks.budget.spent.requests


def test_requests_that_fail_count_in_the_budget(chat: Chat) -> None:
    chat.behave("reset", "status 500", "half", "unsupported logprobs", "retry-after 0.1")
    asks = captioner(chat)
    asks.budget = Budget(max_requests=8)
    ask(asks, 20)
    assert len(chat.requests()) == 8 == asks.budget.spent.requests


def test_the_cost_stays_below_its_limit(chat: Chat) -> None:
    asks = captioner(chat)
    asks.budget = Budget(max_cost=1.0, prices=Prices(input=100, output=1000), expected=0.06)
    answers = ask(asks, 64)
    spent = asks.budget.spent
    assert spent.cost == pytest.approx(spent.requests * (400 * 100 + 12 * 1000) / 1e6)
    assert 0.7 < spent.cost <= 1.0
    assert len(chat.requests()) == spent.requests
    assert BudgetSpent in {type(answer) for answer in answers}


def test_kept_answers_are_not_asked_for(chat: Chat) -> None:
    first, second = captioner(chat), captioner(chat)
    first.answers = second.answers = Kept()
    chat.behave("ok", "refusal")
    answers = ask(first, 1) + ask(first, 6)[1:]
    asked = len(chat.requests())
    assert [str(answer) for answer in ask(second, 6)] == [str(answer) for answer in answers]
    assert len(chat.requests()) == asked == 6
    ask(captioner(chat, prompt="Another question?"), 6)
    assert len(chat.requests()) == 12


def test_answers_that_show_a_wrong_server_are_not_kept(chat: Chat) -> None:
    asks = captioner(chat)
    asks.answers = kept = Kept()
    chat.behave(always="status 400")
    ask(asks, 5)
    assert not kept


def test_an_answer_is_cut_before_anything_looks_at_it(chat: Chat) -> None:
    chat.behave("says " + "dog " * 100_000)
    asks = captioner(chat)
    (answer,) = asks.answer([asks.prepare(photograph(0))], lambda stage: threading.Lock())
    assert isinstance(answer, Caption)
    assert len(answer.text) <= 2000


def test_the_event_loop_of_a_caller_does_not_matter(chat: Chat) -> None:
    import asyncio

    async def caption() -> Caption:
        return captioner(chat).caption(photograph(0))

    assert asyncio.run(caption()).text


@pytest.mark.parametrize("key", ["sk with spaces", "sk-\nline", "schlüssel-0123"])
def test_a_key_that_cannot_be_one_is_not_shown(chat: Chat, key: str) -> None:
    with pytest.raises(CheckpointError) as error:
        captioner(chat, api_key=key)
    assert key not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://user:pa55word@host",
        "http://",
        "x",
        "http://127.0.0.1:99999/v1",
        "http://xn--/v1",
    ],
)
def test_an_address_that_cannot_be_one_is_not_shown(url: str) -> None:
    with pytest.raises(CheckpointError, match="OPENAI_BASE_URL") as error:
        OpenaiCaptioner(CaptionerOptions("openai:any", base_url=url))
    assert "pa55word" not in "".join(traceback.format_exception(error.value))


def test_a_password_in_the_address_is_sent_but_never_shown(
    chat: Chat, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    url = chat.url.replace("http://", "http://ann:pa55word@")
    asks = captioner(chat, base_url=url, patience=0.5)
    asks.answers = kept = Kept()
    ask(asks)
    assert chat.requests()[0]["authorization"].startswith("Basic ")
    echo = "status 400 you are ann:pa55word"
    chat.behave(echo, "says pa55word it is.", "status 500 pa55word", "retry-after 9")
    shown = [str(answer) for answer in ask(asks, 4)] + [repr(asks._options), caplog.text]
    assert "pa55word" not in "".join([*shown, *map(str, kept.values())])
    with pytest.raises(CheckpointError) as error:
        chat.behave(always="status 401 pa55word")
        ask(asks, 9)
    assert "pa55word" not in "".join(traceback.format_exception(error.value))


def test_a_key_that_a_server_repeats_is_hidden(
    chat: Chat, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    asks = captioner(chat, api_key=KEY)
    asks.answers = kept = Kept()
    chat.behave(f"says A dog with {KEY}.", f"status 400 wrong: {KEY}")
    shown = [str(answer) for answer in ask(asks, 1) + ask(asks, 2)]
    assert "***" in "".join(shown)
    assert KEY not in "".join([*shown, *map(str, kept.values()), repr(asks._options), caplog.text])


def test_a_compressed_reply_is_an_answer(chat: Chat) -> None:
    chat.behave("gzip")
    assert isinstance(ask(captioner(chat))[0], Caption)
    assert len(chat.requests()) == 1


@pytest.mark.parametrize("damaged", [b"", b"nonsense", b'200\n{"choices": [{"mess'])
def test_a_damaged_answer_is_asked_for_again(chat: Chat, damaged: bytes) -> None:
    first, second = captioner(chat), captioner(chat)
    first.answers = second.answers = kept = Kept()
    answers = ask(first)
    for key in kept:
        kept[key] = damaged
    assert ask(second) == answers
    assert len(chat.requests()) == 2


def test_a_captioner_without_a_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match="names no model"):
        load_captioner("openai:")


def test_without_httpx_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("captioner.openai")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'captioner\[openai\]'"):
        load_captioner("openai:any")
