"""A Hugging Face model in memory: pictures and a prompt -> tokens with their log-probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from captioner.errors import CheckpointError
from captioner.hf.files import first_line, import_extra

# Raised by models, and by their processors, when something is wrong with them or their input.
FAULTS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    RuntimeError,
    SafetensorError,
)


class Generated(NamedTuple):
    """The hypotheses for N images, R for each, the best first."""

    texts: list[list[str]]  # [N][R]
    token_log_probs: list[list[list[float]]]  # [N][R][T], each up to its end of the sentence


@dataclass(frozen=True)
class HfModel:
    """A model on a device, and what turns pictures into its input and its output into text.

    The `processor` does both, if the model has one.
    """

    model: Any
    processor: Any | None
    image_processor: Any
    tokenizer: Any

    @torch.inference_mode()
    def generate(
        self, pictures: Sequence[Image.Image], prompt: str | None, beams: int, max_new_tokens: int
    ) -> Generated:
        """Generate `beams` hypotheses for each picture."""
        found = self.model.generate(
            **self._inputs(pictures, prompt),
            do_sample=False,
            num_beams=beams,
            num_return_sequences=beams,
            max_new_tokens=max_new_tokens,
            output_scores=True,
            return_dict_in_generate=True,
        )
        log_probs = self.model.compute_transition_scores(
            found.sequences, found.scores, found.get("beam_indices"), normalize_logits=True
        )  # [N * R, T]
        tokens = found.sequences[:, -log_probs.shape[1] :]  # without the prompt
        lengths = self._lengths(tokens).tolist()
        rows = zip(tokens.tolist(), log_probs.tolist(), lengths, strict=True)
        texts, kept = [], []
        for ids, values, length in rows:
            texts.append(self._text(ids[:length]))
            kept.append(values[:length])
        return Generated(_in_rows(texts, beams), _in_rows(kept, beams))

    def _inputs(self, pictures: Sequence[Image.Image], prompt: str | None) -> dict[str, Any]:
        """Return the model's input for a batch, on its device and in its precision."""
        if getattr(self.processor, "chat_template", None):
            inputs = self._chats(pictures, prompt)
        elif self.processor:
            texts = {} if prompt is None else {"text": [prompt] * len(pictures)}
            images = list(pictures)
            inputs = self.processor(images=images, **texts, padding=True, return_tensors="pt")
        else:
            inputs = self._pixels_and_words(pictures, prompt)
        if self.model.config.model_type == "git" and "input_ids" in inputs:
            inputs = {**inputs, **_without_end(inputs)}
        return {name: self._placed(value) for name, value in inputs.items()}

    def _chats(self, pictures: Sequence[Image.Image], prompt: str | None) -> Any:
        text = {"type": "text", "text": prompt or ""}
        chats = [
            [{"role": "user", "content": [{"type": "image", "image": picture}, text]}]
            for picture in pictures
        ]
        assert self.processor is not None
        return self.processor.apply_chat_template(
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            padding=True,
        )

    def _pixels_and_words(self, pictures: Sequence[Image.Image], prompt: str | None) -> Any:
        """Return the input of an encoder for images and a decoder, such as ViT-GPT2."""
        inputs = dict(self.image_processor(list(pictures), return_tensors="pt"))
        if prompt is not None:
            words = self.tokenizer(
                [prompt] * len(pictures), add_special_tokens=False, return_tensors="pt"
            )
            inputs["decoder_input_ids"] = words["input_ids"]
        return inputs

    def _placed(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        dtype = self.model.dtype if value.is_floating_point() else None
        return value.to(self.model.device, dtype)

    def _lengths(self, tokens: Tensor) -> Tensor:
        """Return how many tokens [N, T] a sentence has up to and including its end: [N]."""
        ends = torch.isin(tokens, torch.tensor(self._end_ids, device=tokens.device))
        before = (ends.cumsum(1) - ends.long()) == 0
        return before.sum(1)

    @property
    def _end_ids(self) -> list[int]:
        """The ids of the tokens that end a sentence; models name them in different places."""
        config = self.model.generation_config.eos_token_id
        configured = config if isinstance(config, list) else [config]
        known = {*configured, self.tokenizer.eos_token_id, self.tokenizer.sep_token_id}
        return [token for token in known if token is not None]

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def load_model(
    directory: Path, device: torch.device, precision: str | None, *, trust_remote_code: bool
) -> HfModel:
    """Load a model in a precision, or with "weights" in that of its weights.

    Raises CheckpointError if it does not fit its files or its code is not trusted,
    MissingExtraError without transformers.
    """
    transformers = import_extra("transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    dtype = "auto" if precision in (None, "weights") else precision
    trusted = {"trust_remote_code": trust_remote_code, "local_files_only": not trust_remote_code}
    try:
        model, report = transformers.AutoModelForImageTextToText.from_pretrained(
            directory, use_safetensors=True, dtype=dtype, output_loading_info=True, **trusted
        )
        _check_whole(model, report["missing_keys"])
        _check_finite(model)
        return _with_processor(transformers, model.eval().to(device), directory, trusted)
    except FAULTS as error:
        raise CheckpointError(f"{directory}: {_reason(error)}") from error


def _with_processor(
    transformers: Any, model: Any, directory: Path, trusted: dict[str, bool]
) -> HfModel:
    processor = transformers.AutoProcessor.from_pretrained(directory, **trusted)
    is_whole = hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")
    if is_whole:
        images, tokenizer = processor.image_processor, processor.tokenizer
    else:
        images = transformers.AutoImageProcessor.from_pretrained(directory, **trusted)
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, **trusted)
    tokenizer.padding_side = "left"  # so that every sentence continues where its prompt ends
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return HfModel(model, processor if is_whole else None, images, tokenizer)


def _check_whole(model: Any, missing: Sequence[str]) -> None:
    """Raise ValueError if weights are missing: transformers would make them up at random.

    Some models are published without a pooler, which no caption needs.
    """
    weights = {name for name, _ in model.named_parameters()}
    lost = sorted(name for name in missing if name in weights and "pooler" not in name)
    if lost:
        raise ValueError(f"the weights have no {lost[0]}: they do not fit config.json")


def _check_finite(model: Any) -> None:
    """Raise ValueError if some weights are no numbers: no answer of the model would make sense."""
    for name, values in model.named_parameters():
        can_tell = values.element_size() > 1  # PyTorch cannot for 8 bits
        if can_tell and not values.isfinite().all():
            raise ValueError(f"{name} has values that are not finite: the file is damaged")


def _reason(error: BaseException) -> str:
    """Return why a model cannot be loaded, in one line."""
    if "trust_remote_code" in str(error):
        return (
            "the model needs code of its own, which would run on this machine: read it, and if you "
            "trust it, allow it with --trust-remote-code"
        )
    return f"transformers cannot load it ({first_line(error)})"


def _without_end(inputs: Any) -> dict[str, Tensor]:
    """Return prompts without the token that ends a sentence, after which nothing would follow."""
    return {name: inputs[name][:, :-1] for name in ("input_ids", "attention_mask")}


def _in_rows(values: list[Any], size: int) -> list[list[Any]]:
    return [values[start : start + size] for start in range(0, len(values), size)]
