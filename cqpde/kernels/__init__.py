"""Numba kernels: arrays and scalars in, arrays out; no user code, no closures, cached on disk.

Every parallel loop writes only what belongs to its own index, so results are bit-identical for any number of threads.
"""
