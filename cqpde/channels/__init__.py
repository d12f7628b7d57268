"""The split route: the master equation as a composition of sub-flows that are each solved exactly.

``structure`` finds the sub-flows of a model, ``spectral`` solves them in Fourier space, ``lines`` moves a drift that depends on its own
coordinate, ``kraus`` is the kick as a sum of Kraus operators on the cells, ``shifts`` moves by whole cells, ``resolution`` decides how many
Fourier modes a state needs, and ``compose`` puts the sub-flows together.
"""
