"""Flags with which XLA compiles sooner: most of the time of the tests is compilation."""

from importlib import metadata

# Releases after 0.10 know the first flag no more, and XLA ends a process that has such a flag.
_OLDER = ["--xla_cpu_use_fusion_emitters=false"] * metadata.version("jaxlib").startswith("0.10.")
QUICK = " ".join(
    [*_OLDER, "--xla_cpu_parallel_codegen_split_count=1", "--xla_backend_optimization_level=0"]
)
"""Value of XLA_FLAGS. Tests of training take 0.8 of the processor time of level 1, and one module
of LLVM for a program, instead of several, spares a tenth."""
