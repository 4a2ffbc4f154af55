"""Plan of embedding: pictures decoded by the hosts, and encoded by the chips."""

from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from jaxcurate.checks import InputError
from jaxcurate.encoders import Encoder, make_encoder
from jaxcurate.encoders.base import _BYTES_AT_ONCE, DEFAULTS, EmbedConfig, Kind, _encode
from jaxcurate.encoders.pixels import n_columns
from jaxcurate.planning.ahead_of_time import Compiled, compiled, devices_of
from jaxcurate.planning.kernels import Kernel
from jaxcurate.planning.steps import Ask, Source, Step
from jaxcurate.runtime.devices import ONE_DEVICE, ROWS, SAME

ITEM_BYTES = {"picture": 50e3, "text": 1e3}
"""Bytes of an item as it is stored: a JPEG picture of 500 x 400 pixels, a text of 200 words."""
_COLUMN_BYTES = 100
"""Bytes of id, hashes and measures that are written for each item."""
_TEXT = "some words of a text "
_AT_ONCE = 8
"""Number of items in the program whose operations are counted."""
_TEXTS_RATE = 2000.0
"""Number of texts that a core turns into tokens in a second."""


_A_PROCESS = 2500.0
"""Number of pictures a second that the threads of a process read and decode at most, as assumed."""


class Encoding(NamedTuple):
    """Encoder of a plan, with the shape of a prepared item."""

    encoder: Encoder
    """Encoder with its weights."""
    item: jax.ShapeDtypeStruct
    """Shape and type of a prepared item."""
    n_columns: int
    """Number of columns of its embeddings."""
    flops: float
    """Number of operations for an item."""


def encoder_kind(settings: EmbedConfig, source: str) -> Kind:
    """Returns the kind of the items, as far as the encoder or the source tells.

    Examples:
        >>> encoder_kind(EmbedConfig("bert"), "texts"), encoder_kind(EmbedConfig(), "npy:x.npy")
        ('text', 'vector')
    """
    if source.startswith("npy:") or source.endswith(".npy") or settings.encoder == "identity":
        return "vector"
    return "text" if settings.encoder == "bert" else "picture"


def encoding_of(settings: EmbedConfig, kind: Kind) -> Encoding:
    """Returns the encoder of pictures or texts, and the operations that it takes for an item.

    Raises:
        InputError: its weights are missing, or the encoder is a function of the user's.
    """
    name = settings.encoder or DEFAULTS[kind]
    if ":" in name:
        raise InputError(f"the work of embed.encoder={name!r} is not known: give --embed_rate")
    if name == "pca":
        side = settings.resolution or 32
        width = n_columns(side)
        flops = 2.0 * width * (settings.n_components + width)
        item = jax.ShapeDtypeStruct((side, side, 3), np.uint8)
        nothing = Encoder(lambda items, params: items, None, ("picture",))
        return Encoding(nothing, item, settings.n_components, flops)
    encoder = make_encoder(settings, lambda prepare: [], ONE_DEVICE, kind)
    given: Any = Image.new("RGB", (256, 256)) if kind == "picture" else 40 * _TEXT
    prepared = np.asarray(given if encoder.prepare is None else encoder.prepare(given))
    item = jax.ShapeDtypeStruct(prepared.shape, prepared.dtype)
    items = jax.ShapeDtypeStruct((_AT_ONCE, *item.shape), item.dtype)
    run = lambda items: encoder.encode(items, encoder.params)
    lowered = jax.jit(run).lower(items)
    cost = lowered.cost_analysis()
    assert isinstance(cost, dict)
    width = jax.eval_shape(run, items).shape[1]
    return Encoding(encoder, item, width, cost["flops"] / _AT_ONCE)


def steps_of_embedding(ask: Ask) -> tuple[list[Step], list[str]]:
    """Returns the steps of the stage, and notes on what they assume.

    Examples:
        >>> from jaxcurate.config import ClusterConfig, Config, Level, SampleConfig
        >>> from jaxcurate.planning.machines import tpu_slice
        >>> cluster, sample = ClusterConfig((Level(1000),)), SampleConfig(100)
        >>> settings = Config("npy:x.npy", cluster, sample)
        >>> ask = Ask(settings, tpu_slice("v5e-8"), n_items=10**6, n_columns=64)
        >>> [step.name for step in steps_of_embedding(ask)[0]]
        ['copy vectors']
    """
    n, machine = ask.n_items, ask.machine
    read, written = n * ask.item_bytes, n * (4.0 * ask.n_columns + _COLUMN_BYTES)
    traffic = ask.moved(read + 3 * written)  # parts are written, read, and joined
    host = ask.base_bytes + 64e6 * machine.host.cores / 8
    shared: dict[str, Any] = dict(read=read, written=written, host_bytes=host)
    if ask.embed_rate is not None:
        return [Step("embed", n / ask.embed_rate, "measured rate", "measured", **shared)], []
    if ask.kind == "vector":
        copying = 4.0 * n * ask.n_columns / (ask.host_rate * machine.n_hosts)
        return [Step("copy vectors", max(traffic, copying), "host", **shared)], []
    settings, notes = ask.settings.embed, []
    hosts = n / pictures_a_second(ask)
    if ask.kind == "text":
        hosts = n / (_TEXTS_RATE * machine.cores)
    else:
        notes.append(
            f"a core decodes {ask.decode_rate:g} pictures of 500 x 400 a second, and the process "
            f"of a host at most {_A_PROCESS:,.0f}, as is assumed: only a part of its work is "
            "outside the lock of Python"
        )
        hosts *= 2 if settings.encoder == "pca" else 1  # it is fitted in a pass of its own
    chips, chip_bytes = 0.0, 0.0
    source: Source = "counted"
    try:
        encoding = encoding_of(settings, ask.kind)
    except InputError as error:
        notes.append(f"the time of the chips is not in it: {error}")
    else:
        chips = ask.products(n * encoding.flops, 0, settings.precision)
        at_once = _at_once(ask, encoding)
        per_item = max(1, encoding.encoder.bytes_per_item)
        chip_bytes = at_once * per_item + _bytes_of(encoding.encoder.params)
        if "embed" in ask.compiles and machine.topology and encoding.encoder.params is not None:
            ask.say(f"compiling the encoder for {machine.topology}")
            made = compile_encoder(encoding, machine.topology, at_once)
            chip_bytes, source = made.peak, "compiled"
    seconds = max(hosts, chips, traffic)
    limit = {hosts: "decoding on hosts", chips: "chips", traffic: "reading"}[seconds]
    step = Step("embed", seconds, limit, chip_bytes=chip_bytes, **shared)
    notes.append(
        f"alone, hosts take {hosts:,.0f} s, chips {chips:,.0f} s, and reading {traffic:,.0f} s"
    )
    return [step._replace(memory_source=source)], notes


def pictures_a_second(ask: Ask) -> float:
    """Returns the number of pictures that all hosts decode in a second, a process on each."""
    machine = ask.machine
    return min(machine.cores * ask.decode_rate, machine.n_hosts * _A_PROCESS)


def compile_encoder(encoding: Encoding, topology: str, at_once: int) -> Compiled:
    """Compiles an encoder for a slice, with ``at_once`` items on each chip."""
    devices = devices_of(topology)
    items = jax.ShapeDtypeStruct(
        (at_once * devices.count, *encoding.item.shape), encoding.item.dtype
    )
    params = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(np.shape(a), a.dtype), encoding.encoder.params
    )
    kernel = Kernel(
        _encode, ((ROWS, items), (SAME, params)), ROWS, dict(encode=encoding.encoder.encode)
    )
    return compiled(devices, kernel)


def _at_once(ask: Ask, encoding: Encoding) -> int:
    """Returns the number of items that a chip encodes at a time."""
    per_item = max(1, encoding.encoder.bytes_per_item, 8 * int(np.prod(encoding.item.shape)))
    memory = max(1, _BYTES_AT_ONCE // per_item)
    return max(1, min(memory, -(-ask.settings.embed.batch_size // ask.machine.n_chips)))


def _bytes_of(tree: Any) -> float:
    return float(sum(np.prod(np.shape(a)) * a.dtype.itemsize for a in jax.tree.leaves(tree)))
