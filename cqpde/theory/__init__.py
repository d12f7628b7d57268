"""The rest of the paper as tools: what follows from a model beyond its time evolution.

``tradeoff`` maps condition (6), ``purification`` adds coordinates that make conditional states pure, ``measurement`` builds models of
continuous measurement and conditions a state on a record, ``meanfield`` measures the validity of the semi-classical equations, ``steady``
finds stationary states and relaxation rates, ``thermal`` builds models with a given stationary state and their thermodynamics, ``adjoint`` evolves
observables backward, ``positivity`` watches the map of a model that is not Markovian, and ``fields`` puts a field on a lattice.
"""
