"""The split route: the master equation as a composition of sub-flows that are each solved exactly.

``parts`` are the kinds of sub-flows, ``structure`` finds those of a model, ``commuting`` says which commute; ``spectral`` solves them in
Fourier space, ``lines`` moves a drift that depends on its own coordinate, ``compose`` puts them together, ``resolution`` decides how many
modes a state needs and ``guards`` what a step must not jump over. With exact positivity ``kraus`` is the kick as a sum of Kraus operators on
the cells, ``shifts`` moves by whole cells, ``forward`` is the step of order 4, ``positive`` puts them together, and ``proposal`` names the
nearest grid that works.
"""
