"""What was found to fail once: settings, command lines and marks, as plain literals."""

SETTINGS: tuple[tuple[str, object], ...] = (
    # Tracebacks: too large for a float, for printing, for an array; arrays and sets as a choice.
    ("dedup.threshold", 10**400),
    ("evaluate.pretraining.learning_rate", 10**400),
    ("image_size", 10**5000),
    ("title", 10**5000),
    ("mapper", []),
    ("mapper", {"pmap"}),
    # Accepted.
    ("cluster.levels", b""),
    ("seed", True),
    ("image_size", 2**31),
    ("embed.resolution", 2**63 - 1),
    ("sample.size", 2**63),
    ("memory_limit", 2**70),
    ("dedup.threshold", float("nan")),
    ("evaluate.pretraining.learning_rate", float("inf")),
    ("evaluate.pretraining.weight_decay", float("inf")),
    ("title", "a\nb"),
    ("source", "npy:a\0b"),
    ("grow.prefix", "\x1b[2J"),
    ("data_dir", "a" * 5000),
    ("sample.name", "a" * 256),
    ("sample.name", "é" * 150),
    ("grow.name", "a/b"),
    ("grow.name", ".."),
    ("sample.size", -1),
    ("n_devices", -1),
)
"""A field and its value; each has to be refused in a line that names the field."""

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("--workdir=(gs://b/x,)",),
    ("--workdir='npy:gs://b/x'",),
    ("--workdir=~nobody-here/x", "--config.n_devices=-1"),
    ("--config.unknown=1",),
    ("--config.cluster.unknown=(.,)",),
    ("--config=None",),
    ("--config.sample.mix=",),
    ("--quiet=\x1b[2J",),
)
"""Flags of ``jaxcurate status``, each of which has to be refused."""

TARGETS: tuple[object, ...] = (
    *(
        None,
        3,
        1.5,
        [],
        ["a"],
        {"a": 1},
        "",
        ".",
        "..",
        "a/b",
        "a\0b",
        "\ud800",
        "gs://b",
        "a" * 300,
    ),
)
"""Targets in the mark of a temporary folder that are no names."""
