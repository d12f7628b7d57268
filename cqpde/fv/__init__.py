"""The finite-volume route: the Kraus scheme (numerics in the docstrings of its modules).

``directions`` finds where the noise points and the operators at the interfaces, ``assemble`` turns them into a block stencil with
drift, local terms and ends, ``generator`` applies it, ``limited`` carries the drift along noise-free axes positively.
"""
