"""Models of Hugging Face with random weights, saved by transformers itself, small and fast."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

WORDS = (
    *("a", "the", "man", "woman", "dog", "cat", "runs", "sits", "stands"),
    *("on", "in", "with", "red", "blue", "green", "ball", "tree", "grass"),
)
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[CLS]", "eos_token": "[SEP]"}
SIDE = 32  # of the pictures that the models take
TEXT = {  # a decoder of words, as most configurations name it
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.4,  # so that different pictures have different captions
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
    "initializer_range": 0.4,
}
CHAT = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %} a{% endif %}"
)


def tokenizer(*more: str) -> Any:
    """Return a tokenizer that knows WORDS; a sentence stands between [CLS] and [SEP]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: n for n, word in enumerate((*SPECIAL.values(), *more, *WORDS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        additional_special_tokens=list(more),
        model_input_names=["input_ids", "attention_mask"],
        **SPECIAL,
    )


def ids_of(words: Any) -> dict[str, int]:
    """Return the special tokens of a tokenizer, as configurations name them."""
    return {
        "vocab_size": len(words),
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }


def save(directory: Path, parts: Sequence[Any]) -> Path:
    for part in parts:
        part.save_pretrained(directory)
    return directory


def blip(directory: Path) -> Path:
    """Write a BLIP: a ViT, and a decoder that attends to it."""
    from transformers import (
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    words = tokenizer()
    text = {**TEXT, **ids_of(words), "sep_token_id": words.eos_token_id, "encoder_hidden_size": 32}
    config = BlipConfig(text_config=text, vision_config=VISION, projection_dim=32)
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    return save(directory, [BlipForConditionalGeneration(config), BlipProcessor(images, words)])


def speaking_blip(directory: Path) -> Path:
    """Write a BLIP that says "a dog runs on the grass" of every picture."""
    import torch
    from transformers import BlipForConditionalGeneration

    model = BlipForConditionalGeneration.from_pretrained(blip(directory))
    said = tokenizer()("a dog runs on the grass")["input_ids"]
    weights = dict(model.text_decoder.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            if "output.dense" in name or "position" in name or name.endswith("bias"):
                weight.zero_()  # so that a word depends on nothing but the word before it
        words = weights["bert.embeddings.word_embeddings.weight"]
        words.copy_(torch.eye(*words.shape))
        follow = weights["cls.predictions.transform.dense.weight"].zero_()  # [next word, word]
        follow[said[-1]] = 1
        for word, after in pairwise(said):
            follow[:, word] = 0
            follow[after, word] = 1
    return save(directory, [model])


def vit_gpt2(directory: Path) -> Path:
    """Write a ViT with a GPT-2, which has no processor of its own."""
    from transformers import (
        GPT2Config,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
    )

    words = tokenizer()
    ids = ids_of(words)
    gpt2 = GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=128, initializer_range=0.4, **ids)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**VISION), gpt2)
    config.decoder_start_token_id, config.pad_token_id = words.bos_token_id, words.pad_token_id
    config.eos_token_id = words.eos_token_id
    images = ViTImageProcessor(size={"height": SIDE, "width": SIDE})
    return save(directory, [VisionEncoderDecoderModel(config), images, words])


def git(directory: Path) -> Path:
    """Write a GIT: one sequence of image and words."""
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    words = tokenizer()
    config = GitConfig(vision_config=VISION, **TEXT, **ids_of(words))
    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE)
    return save(directory, [GitForCausalLM(config), GitProcessor(images, words)])


def llava(directory: Path) -> Path:
    """Write a LLaVA, a model for chats."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    words = tokenizer("<image>")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=LlamaConfig(**TEXT, **ids_of(words)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    config.pad_token_id = words.pad_token_id
    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE)
    processor = LlavaProcessor(
        images,
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )
    return save(directory, [LlavaForConditionalGeneration(config), processor])


def qwen2_vl(directory: Path) -> Path:
    """Write a Qwen2-VL, a model for chats that makes more tokens of larger images."""
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    marks = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    words = tokenizer(*marks)
    image, video, start, end = words.convert_tokens_to_ids(list(marks))
    heads = {
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 4], "rope_theta": 1e4},
    }
    config = Qwen2VLConfig(
        text_config={**TEXT, **ids_of(words), **heads},
        vision_config={
            "depth": 1,
            "embed_dim": 32,
            "num_heads": 2,
            "hidden_size": 32,
            "patch_size": 8,
        },
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    sizes = {"patch_size": 8, "size": {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}}
    chat = CHAT.replace("<image>", "<|vision_start|> <|image_pad|> <|vision_end|>")
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(**sizes), words, Qwen2VLVideoProcessor(**sizes), chat_template=chat
    )
    return save(directory, [Qwen2VLForConditionalGeneration(config), processor])


MODELS: dict[str, Callable[[Path], Path]] = {
    make.__name__: make for make in (blip, vit_gpt2, git, llava, qwen2_vl)
}


@pytest.fixture(scope="session")
def hf_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from the name of a model to its directory, which it makes once."""
    import torch

    made: dict[str, Path] = {}

    def directory(name: str) -> Path:
        if name not in made:
            torch.manual_seed(0)
            make = speaking_blip if name == speaking_blip.__name__ else MODELS[name]
            made[name] = make(tmp_path_factory.mktemp("hf") / name)
        return made[name]

    return directory
