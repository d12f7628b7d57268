"""Full hybrid distributions rho(z, t) of classical-quantum master equations.

The names below are loaded when they are first used, so that ``import cqpde`` and ``cqpde --help`` are quick.

>>> import cqpde as cq
>>> cq.Grid(q=(-5, 5, 128), p=(-7, 7, 64)).shape
(128, 64)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import models, observables
    from . import plotting as plot
    from .coefficients import sampled
    from .errors import CqpdeError, CqpdeWarning
    from .fv.generator import generator
    from .grid import Grid
    from .hamiltonian import healed
    from .initial import State, correlated, from_array, gaussian, point, product
    from .interop import from_qobj
    from .io import load, save
    from .model import Model
    from .operators import basis, destroy, identity, ket, projector, sigmam, sigmap, sigmax, sigmay, sigmaz, tensor
    from .report import Report, validate
    from .sites import KetSum, ProductSum, ghz, product_ket, solve_sites, w_state
    from .solver import solve
    from .unravelling import correlation, extend, spectrum, unravel

_WHERE = {
    "sampled": "coefficients", "CqpdeError": "errors", "CqpdeWarning": "errors", "generator": "fv.generator", "Grid": "grid",
    "State": "initial", "correlated": "initial", "from_array": "initial", "gaussian": "initial", "point": "initial",
    "product": "initial", "load": "io", "save": "io", "Model": "model", "healed": "hamiltonian", "solve": "solver",
    "Report": "report", "validate": "report", "from_qobj": "interop",
    **dict.fromkeys(("KetSum", "ProductSum", "ghz", "product_ket", "solve_sites", "w_state"), "sites"),
    **dict.fromkeys(("correlation", "extend", "spectrum", "unravel"), "unravelling"),
    **dict.fromkeys(
        ("basis", "destroy", "identity", "ket", "projector", "sigmam", "sigmap", "sigmax", "sigmay", "sigmaz", "tensor"), "operators"
    ),
}  # fmt: skip

__all__ = [
    "CqpdeError", "CqpdeWarning", "Grid", "KetSum", "Model", "ProductSum", "Report", "State", "basis", "correlated", "correlation", "destroy", "extend",
    "from_array", "from_qobj", "gaussian", "generator", "ghz", "healed", "identity", "ket", "load", "models", "observables", "plot", "point", "product",
    "product_ket", "projector", "sampled", "save", "sigmam", "sigmap", "sigmax", "sigmay", "sigmaz", "solve", "solve_sites", "spectrum", "tensor",
    "unravel", "validate", "w_state",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in ("models", "observables", "plot"):
        return import_module(f".{'plotting' if name == 'plot' else name}", __name__)
    if name not in _WHERE:
        raise AttributeError(f"module 'cqpde' has no attribute {name!r}")
    value = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
