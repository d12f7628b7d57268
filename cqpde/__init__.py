"""Full hybrid distributions rho(z, t) of classical-quantum master equations.

>>> import cqpde as cq
>>> cq.Grid(q=(-5, 5, 128), p=(-7, 7, 64)).shape
(128, 64)
"""

from .coefficients import sampled
from .components import min_eigenvalues
from .fv.generator import generator
from .grid import Grid
from .initial import State, correlated, from_array, gaussian, point, product
from .model import Model, healed
from .operators import *
from . import observables
from .solve import solve
