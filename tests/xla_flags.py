"""Flags with which XLA compiles sooner: most of the time of the tests is compilation."""

from importlib import metadata


def with_effort(level):
    """Returns the value of XLA_FLAGS for an optimization level of LLVM, from 0 to 3.

    At level 1 small k-means compile in 0.6 of the time with the same bits
    (``scripts/bench/compilation.py``). One module of LLVM, instead of one for each core and more,
    spares a tenth of the processor time.
    """
    # Releases after 0.10 know the first flag no more, and XLA ends a process that has such a flag.
    older = metadata.version("jaxlib").startswith("0.10.")
    return " ".join(
        [
            *(["--xla_cpu_use_fusion_emitters=false"] if older else []),
            "--xla_cpu_parallel_codegen_split_count=1",
            f"--xla_backend_optimization_level={level}",
        ]
    )
