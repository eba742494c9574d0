"""Models of Hugging Face: what transformers itself says, and nothing that it should not do."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from captioner import Captioner, CaptionerError, CheckpointError, MissingExtraError, SearchOptions
from captioner.captioner import not_measured
from captioner.hf.captioner import _side
from captioner.hf.model import HfModel
from captioner.loading import identify
from captioner.options import CaptionerOptions
from tests.support.hf_models import MODELS
from tests.support.photographs import photograph

HfDirectory = Callable[[str], Path]
PHOTOS = [photograph(number) for number in range(5)]
TOKENS = 10  # a caption of 20 characters has no more


def search(beams: int = 1) -> SearchOptions:
    return SearchOptions(beam_size=beams, max_characters=2 * TOKENS)


def load(directory: Path, beams: int = 1, **options: Any) -> Captioner:
    return Captioner.load(f"hf:{directory}", device="cpu", search=search(beams), **options)


def answers(captioner: Captioner, photos: Sequence[bytes] = PHOTOS) -> list[Any]:
    """Return what the captioner answers, before the house rules."""
    return list(captioner.answer([captioner.prepare(photo) for photo in photos], not_measured))


def copied(directory: Path, folder: Path) -> Path:
    return Path(shutil.copytree(directory, folder / directory.name))


def library_caption(directory: Path, picture: Image.Image, beams: int) -> tuple[str, list[float]]:
    """Return the text that transformers generates, and the log-probabilities of one forward pass.

    The pass is over the whole sentence at once, so that no cache and no score of the search counts.
    """
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    model = AutoModelForImageTextToText.from_pretrained(directory).eval()
    images, words = (
        auto.from_pretrained(directory) for auto in (AutoImageProcessor, AutoTokenizer)
    )
    pixels = images(picture, return_tensors="pt")["pixel_values"]
    length = {"num_beams": beams, "do_sample": False, "max_new_tokens": TOKENS}
    with torch.no_grad():
        (ids,) = model.generate(pixel_values=pixels, **length)
        end = (ids[1:] == words.eos_token_id).nonzero()
        ids = ids[: int(end[0]) + 2] if len(end) else ids
        name = "decoder_input_ids" if hasattr(model, "decoder") else "input_ids"
        logits = model(pixel_values=pixels, **{name: ids[None]}).logits[0, -len(ids) : -1]
    log_probs = logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0]
    return words.decode(ids, skip_special_tokens=True), log_probs.tolist()


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", ["blip", "vit_gpt2", "git"])
def test_captions_are_those_of_transformers(hf_model: HfDirectory, name: str, beams: int) -> None:
    captioner = load(hf_model(name), beams)
    found = answers(captioner)
    assert len({caption.text for caption in found}) > 1
    for photo, caption in zip(PHOTOS, found, strict=True):
        picture = Image.fromarray(captioner.prepare(photo).pixels)
        text, log_probs = library_caption(hf_model(name), picture, beams)
        assert caption.text == text
        assert caption.token_log_probs == pytest.approx(log_probs, abs=1e-4)
        assert caption.log_prob == pytest.approx(sum(log_probs), abs=1e-4)
        assert caption.confidence is None


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_gets_the_captions_of_single_images(hf_model: HfDirectory, name: str) -> None:
    tall = io.BytesIO()
    Image.open(io.BytesIO(PHOTOS[0])).resize((20, 60)).save(tall, "JPEG")
    photos = [*PHOTOS, tall.getvalue()]
    captioner = load(hf_model(name), beams=2)
    together = answers(captioner, photos)
    alone = [answers(captioner, [photo])[0] for photo in photos]
    assert [caption.text for caption in together] == [caption.text for caption in alone]
    for caption, other in zip(together, alone, strict=True):
        assert caption.token_log_probs == pytest.approx(other.token_log_probs, abs=1e-4)


def test_beams_give_alternatives_with_other_texts(hf_model: HfDirectory) -> None:
    for caption in answers(load(hf_model("blip"), beams=3)):
        texts = [caption.text, *(other.text for other in caption.alternatives)]
        assert 1 < len(texts) == len(set(texts))
        assert all(other.log_prob < 0 for other in caption.alternatives)
    assert not answers(load(hf_model("blip")))[0].alternatives


@pytest.mark.parametrize("name", MODELS)
def test_a_prompt_changes_the_caption_and_is_no_part_of_it(
    hf_model: HfDirectory, name: str
) -> None:
    plain, asked = (load(hf_model(name), prompt=prompt) for prompt in (None, "dog on grass"))
    texts, others = ([c.text for c in answers(captioner)] for captioner in (plain, asked))
    assert texts != others
    assert not any(text.startswith("dog on grass") for text in others)
    assert all(len(caption.token_log_probs) <= TOKENS for caption in answers(asked))
    assert plain.identity != asked.identity


def test_a_model_for_chats_is_asked_for_alt_text(hf_model: HfDirectory) -> None:
    assert "alt text" in str(load(hf_model("llava")).settings["prompt"])
    assert load(hf_model("blip")).settings["prompt"] is None


def test_a_model_computes_in_the_precision_of_its_weights(
    hf_model: HfDirectory, tmp_path: Path
) -> None:
    from transformers import AutoModelForImageTextToText

    directory = copied(hf_model("blip"), tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(directory).bfloat16()
    model.save_pretrained(directory)
    halves, whole = load(directory), load(hf_model("blip"))
    assert {weight.dtype for weight in halves.model.model.parameters()} == {torch.bfloat16}
    assert answers(halves) != answers(whole)
    assert halves.identity != whole.identity


def test_pictures_keep_their_proportions_at_twice_the_size_of_the_model(
    hf_model: HfDirectory,
) -> None:
    large = io.BytesIO()
    Image.new("RGB", (400, 200)).save(large, "PNG")
    prepared = load(hf_model("blip")).prepare(large.getvalue())
    assert prepared.pixels.shape == (32, 64, 3)
    assert (prepared.width, prepared.height) == (400, 200)


@pytest.mark.parametrize(
    ("size", "side"),
    [
        (224, 448),
        ({"shortest_edge": None, "longest_edge": 384}, 768),
        ({"shortest_edge": None}, 1024),
        (None, 1024),
    ],
)
def test_the_size_of_pictures_is_found_however_a_processor_names_it(
    size: object, side: int
) -> None:
    assert _side(SimpleNamespace(size=size)) == side


def test_an_image_that_the_model_cannot_take_costs_no_other(hf_model: HfDirectory) -> None:
    line = io.BytesIO()
    Image.new("RGB", (900, 2)).save(line, "PNG")  # Qwen2-VL takes no such proportions
    captioner = load(hf_model("qwen2_vl"))
    first, bad, second = answers(captioner, [PHOTOS[0], line.getvalue(), PHOTOS[1]])
    assert "aspect ratio" in str(bad)
    assert [first.text, second.text] == [c.text for c in answers(captioner, PHOTOS[:2])]
    (alone,) = answers(captioner, [line.getvalue()])
    assert "aspect ratio" in str(alone)


def test_a_model_that_can_caption_nothing_is_an_error(
    hf_model: HfDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("shapes do not match\nat great length")

    captioner = load(hf_model("blip"))
    monkeypatch.setattr(HfModel, "generate", broken)
    with pytest.raises(CaptionerError, match=r"fails: shapes do not match$"):
        answers(captioner)


def test_a_model_that_says_nothing_is_an_error(
    hf_model: HfDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = load(hf_model("blip"))
    text, texts = HfModel._text, iter(["", ".", ""])
    monkeypatch.setattr(HfModel, "_text", lambda *ids: next(texts, None) or text(*ids))
    answers(captioner, PHOTOS[:3])  # a few answers may be empty
    assert not any(map(bool, texts)) and answers(captioner)
    monkeypatch.setattr(HfModel, "_text", lambda *_: "")
    assert [caption.text for caption in answers(captioner, PHOTOS * 3)] == [""] * 15
    silent = load(hf_model("blip"))
    with pytest.raises(CaptionerError, match="says nothing: its first 10 answers have no word"):
        answers(silent), answers(silent)


NO_MEMORY = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"
)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(), MemoryError(), RuntimeError(NO_MEMORY)], ids=repr
)
def test_a_batch_that_does_not_fit_into_memory_is_divided(
    hf_model: HfDirectory, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    generate, sizes = HfModel.generate, []

    def little_memory(model: HfModel, pictures: Sequence[Image.Image], *more: Any) -> Any:
        sizes.append(len(pictures))
        if len(pictures) > room:
            raise error
        return generate(model, pictures, *more)

    captioner = load(hf_model("blip"))
    expected = [caption.text for caption in answers(captioner)]
    monkeypatch.setattr(HfModel, "generate", little_memory)
    room = 2
    assert [caption.text for caption in answers(captioner)] == expected
    assert sizes == [5, 2, 2, 1]
    assert [caption.text for caption in answers(captioner)] == expected
    assert sizes[4:] == [2, 2, 1]  # the larger batch is not tried again
    room = 0
    with pytest.raises(CaptionerError, match="not enough memory for one image"):
        answers(captioner)


def test_the_identity_is_of_the_files_and_the_settings(
    hf_model: HfDirectory, tmp_path: Path
) -> None:
    directory = copied(hf_model("blip"), tmp_path)
    options = CaptionerOptions(f"hf:{directory}")
    known = identify(options)
    assert known == identify(CaptionerOptions(f"hf:{hf_model('blip')}"))
    changed = [
        {"search": SearchOptions(beam_size=1)},
        {"search": SearchOptions(max_characters=80)},
        {"prompt": "a dog"},
        {"language": "de"},
        {"calibration": {"bias": 1}},
    ]
    found = {identify(CaptionerOptions(f"hf:{directory}", **other)) for other in changed}
    for name in ("model.safetensors", "tokenizer.json", "calibration.json"):
        with (directory / name).open("ab") as file:
            file.write(b" " if file.tell() else b"{}")
        found.add(identify(options))
    assert len(found - {known}) == len(changed) + 3


def test_the_identity_is_known_without_loading_the_model(hf_model: HfDirectory) -> None:
    script = (
        "import sys; from captioner.loading import identify;"
        "from captioner.options import CaptionerOptions as Options;"
        "print(identify(Options(sys.argv[1])));"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    for name in ("blip", "llava"):
        command = [sys.executable, "-c", script, f"hf:{hf_model(name)}"]
        known = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert known == Captioner.load(f"hf:{hf_model(name)}", device="cpu").identity
        assert known.startswith(f"hf:{name}@")


def test_weights_that_could_run_code_are_refused(hf_model: HfDirectory, tmp_path: Path) -> None:
    directory = copied(hf_model("blip"), tmp_path)
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    for refuse in (load, lambda path: identify(CaptionerOptions(f"hf:{path}"))):
        with pytest.raises(CheckpointError, match=r"only pytorch_model\.bin.*save_pretrained"):
            refuse(directory)


CODE = """
from pathlib import Path
from transformers import BlipConfig, BlipForConditionalGeneration
Path({marker!r}).touch()
class Config(BlipConfig):
    model_type = "special"
class Model(BlipForConditionalGeneration):
    config_class = Config
"""


@pytest.fixture
def with_code(hf_model: HfDirectory, tmp_path: Path) -> Path:
    """Return a model whose code writes a file "ran" beside it."""
    directory = copied(hf_model("blip"), tmp_path)
    (directory / "special.py").write_text(CODE.format(marker=str(tmp_path / "ran")))
    config = json.loads((directory / "config.json").read_text())
    classes = {"AutoConfig": "special.Config", "AutoModelForImageTextToText": "special.Model"}
    config |= {"model_type": "special", "auto_map": classes}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def test_the_code_of_a_model_is_not_run(with_code: Path) -> None:
    with pytest.raises(CheckpointError, match="--trust-remote-code"):
        load(with_code)
    config = json.loads((with_code / "config.json").read_text())
    (with_code / "config.json").write_text(json.dumps(config | {"model_type": "blip"}))
    assert answers(load(with_code), PHOTOS[:1])[0].text  # transformers has code of its own for it
    assert not (with_code.parent / "ran").exists()


def test_the_code_of_a_model_is_run_and_identified_if_it_is_trusted(
    with_code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    captioner = load(with_code, trust_remote_code=True)
    assert (tmp_path / "ran").exists()
    with (with_code / "special.py").open("a") as file:
        file.write("# changed\n")
    assert load(with_code, trust_remote_code=True).identity != captioner.identity


def test_weights_that_are_missing_are_not_made_up(hf_model: HfDirectory, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    directory = copied(hf_model("blip"), tmp_path)
    weights = load_file(directory / "model.safetensors")
    lost = next(name for name in weights if name.endswith("query.weight"))
    save_file({n: w for n, w in weights.items() if n != lost}, directory / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{directory}.*{lost}"):
        load(directory)
    (directory / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=str(directory)):
        load(directory)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the cache of Hugging Face, empty, on a machine without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_model_in_the_cache_is_found_by_its_name(hf_model: HfDirectory, cache: Path) -> None:
    repository, commit = cache / "models--somebody--tiny", "0123456789" * 4
    shutil.copytree(hf_model("blip"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    captioner = Captioner.load("hf:somebody/tiny", device="cpu", search=search())
    local = load(hf_model("blip"))
    assert captioner.identity == local.identity.replace("hf:blip@", "hf:somebody/tiny@")
    assert answers(captioner, PHOTOS[:1]) == answers(local, PHOTOS[:1])


@pytest.mark.parametrize("name", ["nobody/nothing", "a/b/c"])
def test_a_model_that_is_nowhere_is_an_error_of_one_line(name: str, cache: Path) -> None:
    with pytest.raises(CheckpointError, match=f"^hf:{name}: [^\n]*give a directory[^\n]*$"):
        Captioner.load(f"hf:{name}")


@pytest.mark.parametrize("name", ["/nowhere/model", "./model", "../model/", "models/"])
def test_a_path_without_a_directory_is_not_looked_for_on_the_hub(name: str, cache: Path) -> None:
    with pytest.raises(CheckpointError, match=f"^hf:{name}: no such directory: /[^ ]*$"):
        Captioner.load(f"hf:{name}")


@pytest.mark.parametrize("config", ["[" * 100_000, f'{{"model_type": {"9" * 5000}}}', "{"])
def test_a_configuration_that_is_no_json_is_an_error(
    hf_model: HfDirectory, tmp_path: Path, config: str
) -> None:
    directory = copied(hf_model("blip"), tmp_path)
    (directory / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=r"config\.json: not JSON \([^\n]*\)$"):
        identify(CaptionerOptions(f"hf:{directory}"))
    with pytest.raises(CheckpointError, match=f"^{directory}[^\n]*$"):
        load(directory)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(
    hf_model: HfDirectory, tmp_path: Path, value: float
) -> None:
    from safetensors.torch import load_file, save_file

    directory = copied(hf_model("blip"), tmp_path)
    weights = load_file(directory / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] = value
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="values that are not finite"):
        load(directory)


@pytest.mark.parametrize("language", ["zh-CN", "ZH", "eng", ""])
def test_a_language_is_a_code_of_two_letters(hf_model: HfDirectory, language: Any) -> None:
    for use in (load, lambda path, **more: identify(CaptionerOptions(f"hf:{path}", **more))):
        with pytest.raises(CaptionerError, match="language must be an ISO 639-1 code"):
            use(hf_model("blip"), language=language)


def test_a_directory_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load(tmp_path)


def test_without_transformers_the_error_says_what_to_install(
    hf_model: HfDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'captioner\[hf\]'"):
        load(hf_model("blip"))
