"""Tiny BERT folders in the published layout from a seed, for tests and scripts/parity_bert.py."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "sat", "on", "##s", "."]
PUBLISHED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 32,
    "intermediate_size": 48,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 16,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": 40,
}
VARIANTS = {
    "gelu": {},
    "tanh": {"hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "pad_token_id": 3},
    "relu": {"hidden_act": "relu", "num_attention_heads": 1, "type_vocab_size": 1},
}
TEXTS = [
    "The cat sat on the mat.",
    "",
    "Curating data by hierarchical k-means balances concepts.",
    "nai\u0308ve CAFE\u0301, 中文字 и кириллица, \U0001f600\u200d\U0001f4bb zero\u200bwidth",
    "a [MASK] and a [PAD] amid the words",
    "supercalifragilistic" * 8,
    "word and again another, " * 400,
]
"""Texts of golden embeddings: ordinary, empty, odd Unicode, special tokens, a long word, long."""


def tensors(config: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Draws the tensors of a model, by their published names."""
    width, hidden = config["hidden_size"], config["intermediate_size"]
    rng = np.random.default_rng(seed)
    out = {}

    def add(name: str, *shape: int) -> None:
        scale, mean = (0.2, 1.0) if "LayerNorm" in name else (1.2 / np.sqrt(shape[-1]), 0.0)
        out[f"{name}.weight"] = (mean + scale * rng.normal(size=shape)).astype(np.float32)
        if "embeddings." not in name or "LayerNorm" in name:
            out[f"{name}.bias"] = (0.2 * rng.normal(size=shape[:1])).astype(np.float32)

    add("embeddings.word_embeddings", config["vocab_size"], width)
    add("embeddings.position_embeddings", config["max_position_embeddings"], width)
    add("embeddings.token_type_embeddings", config["type_vocab_size"], width)
    add("embeddings.LayerNorm", width)
    for i in range(config["num_hidden_layers"]):
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            add(f"encoder.layer.{i}.attention.{part}", width, width)
        add(f"encoder.layer.{i}.attention.output.LayerNorm", width)
        add(f"encoder.layer.{i}.intermediate.dense", hidden, width)
        add(f"encoder.layer.{i}.output.dense", width, hidden)
        add(f"encoder.layer.{i}.output.LayerNorm", width)
    return out


LENGTHS = (9, 5, 1, 7)
"""Numbers of tokens of the texts that :func:`ids` draws."""


def ids(config: dict, seed: int = 1) -> np.ndarray:
    """Draws token ids, int32 ``[4, 9]``, with padding at the ends and amid the last text."""
    drawn = np.random.default_rng(seed).integers(5, config["vocab_size"], (4, 9))
    used = np.arange(9)[None] < np.array(LENGTHS)[:, None]
    out = np.where(used, drawn, config["pad_token_id"])
    out[3, 2] = config["pad_token_id"]
    return out.astype(np.int32)


def write_folder(folder: Path, **changes) -> dict[str, np.ndarray]:
    """Writes a sentence-transformers folder with a tiny model, and returns its tensors."""
    config = PUBLISHED | changes
    (folder / "1_Pooling").mkdir(parents=True)
    write_json(folder / "config.json", config)
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(steps)
        ],
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 12, "do_lower_case": False})
    modes = {"word_embedding_dimension": config["hidden_size"]}
    modes |= {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    write_json(folder / "1_Pooling" / "config.json", modes)
    write_json(folder / "tokenizer.json", tokenizer())
    drawn = tensors(config)
    save_file(drawn, folder / "model.safetensors")
    return drawn


def write_json(path: Path, value) -> None:
    """Writes a value as JSON."""
    path.write_text(json.dumps(value), encoding="utf-8")


def tokenizer() -> dict:
    """Returns the content of a tokenizer.json of 12 words, which truncates and pads to 5."""
    special = [
        {"id": i, "content": word, "special": True, "single_word": False}
        | {"lstrip": False, "rstrip": False, "normalized": False}
        for i, word in enumerate(WORDS[:5])
    ]
    ends = [{"SpecialToken": {"id": word, "type_id": 0}} for word in ("[CLS]", "[SEP]")]
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 5}, "direction": "Right", "pad_to_multiple_of": None}
        | {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": special,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
        | {"strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [ends[0], text, ends[1]],
            "pair": [ends[0], text, ends[1], {"Sequence": {"id": "B", "type_id": 1}}, ends[1]],
            "special_tokens": {
                word: {"id": word, "ids": [WORDS.index(word)], "tokens": [word]}
                for word in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: i for i, word in enumerate(WORDS)},
        },
    }
