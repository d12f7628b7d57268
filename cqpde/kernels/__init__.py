"""Numba kernels: arrays and scalars in, arrays out; no user code, no closures, kept on disk (:mod:`cqpde.compiling`).

Every parallel loop writes only what belongs to its own index, so results are bit-identical for any number of threads.
"""
