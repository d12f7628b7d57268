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
    from .errors import CqpdeError, CqpdeWarning, Interrupted
    from .estimating import Estimate, estimate
    from .following import follow
    from .fv.generator import generator
    from .grid import Grid
    from .hamiltonian import healed
    from .initial import State, correlated, from_array, gaussian, point, product
    from .interop import from_qobj
    from .io import load, save
    from .model import Model
    from .moving import MovingSolution
    from .operators import basis, destroy, identity, ket, projector, sigmam, sigmap, sigmax, sigmay, sigmaz, tensor
    from .report import Report, validate
    from .resuming import resume
    from .sites import KetSum, ProductSum, ghz, product_ket, solve_sites, w_state
    from .solver import solve
    from .theory.adjoint import adjoint
    from .theory.fields import scalar_field
    from .theory.meanfield import mean_field_distance, mean_field_validity
    from .theory.measurement import condition, measured, record_operator
    from .theory.positivity import map_positivity
    from .theory.purification import church, temple
    from .theory.steady import detailed_balance, steady_state
    from .theory.thermal import thermal, thermal_state, thermodynamics
    from .theory.tradeoff import decoherence_diffusion
    from .unravelling import correlation, extend, spectrum, unravel

_WHERE = {
    "sampled": "coefficients", "CqpdeError": "errors", "CqpdeWarning": "errors", "Interrupted": "errors", "generator": "fv.generator", "Grid": "grid",
    "State": "initial", "correlated": "initial", "from_array": "initial", "gaussian": "initial", "point": "initial",
    "product": "initial", "follow": "following", "MovingSolution": "moving", "load": "io", "save": "io", "Model": "model", "healed": "hamiltonian", "solve": "solver",
    "resume": "resuming", "Estimate": "estimating", "estimate": "estimating", "Report": "report", "validate": "report", "from_qobj": "interop",
    **dict.fromkeys(("KetSum", "ProductSum", "ghz", "product_ket", "solve_sites", "w_state"), "sites"),
    "adjoint": "theory.adjoint", "decoherence_diffusion": "theory.tradeoff",
    "scalar_field": "theory.fields", "mean_field_distance": "theory.meanfield", "mean_field_validity": "theory.meanfield", "map_positivity": "theory.positivity",
    **dict.fromkeys(("condition", "measured", "record_operator"), "theory.measurement"),
    **dict.fromkeys(("church", "temple"), "theory.purification"),
    "detailed_balance": "theory.steady", "steady_state": "theory.steady",
    **dict.fromkeys(("thermal", "thermal_state", "thermodynamics"), "theory.thermal"),
    **dict.fromkeys(("correlation", "extend", "spectrum", "unravel"), "unravelling"),
    **dict.fromkeys(
        ("basis", "destroy", "identity", "ket", "projector", "sigmam", "sigmap", "sigmax", "sigmay", "sigmaz", "tensor"), "operators"
    ),
}  # fmt: skip

__all__ = [
    "CqpdeError", "CqpdeWarning", "Estimate", "Grid", "Interrupted", "KetSum", "Model", "MovingSolution", "ProductSum", "Report", "State", "adjoint", "basis", "church",
    "condition", "correlated", "correlation", "decoherence_diffusion", "destroy", "detailed_balance", "estimate", "extend", "follow", "from_array",
    "from_qobj", "gaussian", "generator", "ghz", "healed", "identity", "ket", "load", "map_positivity", "mean_field_distance", "mean_field_validity",
    "measured", "models", "observables", "plot", "point", "product", "product_ket", "projector", "record_operator", "resume",
    "sampled", "save", "scalar_field", "sigmam", "sigmap", "sigmax", "sigmay", "sigmaz", "solve", "solve_sites", "spectrum", "steady_state",
    "temple", "tensor", "thermal", "thermal_state", "thermodynamics", "unravel", "validate", "w_state",
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
