"""Calls of the public functions with sensible arguments, of which one or two are replaced by what nobody should pass."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import sympy
from hypothesis import strategies as st

import cqpde as cq

from .fuzz_cases import junk
from .fuzzing import Case


@cache
def _things() -> dict[str, Any]:
    """Small results that functions take."""
    model = cq.models.linear_diosi()
    grid = cq.Grid(q=(-6, 6, 14), p=(-9, 9, 16))
    start = cq.gaussian(grid, 0.0, 0.8, cq.ket("+"))
    x = cq.Model(("x",), 2, L=cq.sigmaz(), D1=[[0.5]], D2=[[0.5]], D0="saturated", D1C=[-1.0 * sympy.Symbol("x", real=True)])
    wall = cq.Grid(x=(-4, 4, 16, "reflecting"))
    sol = cq.solve(model, start, [0, 0.1], tol=0.1, method="fv", grid_error=False)
    ens = cq.unravel(model, start, [0, 0.1], trajectories=60, seed=1, store=1)
    return {
        "model": model, "grid": grid, "start": start, "x": x, "wall": wall, "bump": cq.gaussian(wall, 0.0, 0.5, cq.ket("+")), "sol": sol, "ens": ens,
        "arrays": {"t": [0.1], "z": np.zeros((60, 1, 2)), "rho": np.broadcast_to(np.eye(2) / 2, (60, 1, 2, 2))},
    }  # fmt: skip


def _calls() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Functions and their sensible arguments by name."""
    o = _things()
    q, p = sympy.symbols("q p", real=True)
    x = sympy.Symbol("x", real=True)
    flat = lambda z: np.exp(-(z.q**2) - z.p**2)
    at = lambda name: lambda **k: getattr(o["sol"].cq, name)(*k.values())
    return {
        "Grid": (lambda **k: cq.Grid(q=tuple(k.values())), {"lower": -1, "upper": 1, "cells": 8, "ends": "open"}),
        "Grid.suggest": (cq.Grid.suggest, {"model": o["model"], "rho0": {"mean": {"q": 0}, "std": {"q": 1, "p": 1}}, "t": 0.1}),
        "Grid.suggest state": (cq.Grid.suggest, {"model": o["model"], "rho0": o["start"], "t": 0.1}),
        "with_cells": (lambda **k: o["grid"].with_cells(q=k["q"]), {"q": 9}),
        "coarsened": (o["grid"].coarsened, {"factor": 2.0}),
        "ket": (cq.ket, {"label": "+"}), "basis": (cq.basis, {"d": 2, "level": 0}), "identity": (cq.identity, {"d": 2}), "destroy": (cq.destroy, {"d": 3}),
        "projector": (cq.projector, {"state": cq.ket("+")}), "tensor": (lambda **k: cq.tensor(*k.values()), {"a": cq.sigmaz(), "b": cq.sigmax()}),
        "gaussian": (cq.gaussian, {"grid": o["grid"], "mean": {"q": 0.1}, "std": 0.9, "state": cq.ket("0")}),
        "gaussian cov": (cq.gaussian, {"grid": o["grid"], "mean": 0.0, "state": cq.ket("0"), "cov": np.eye(2)}),
        "point": (cq.point, {"grid": o["grid"], "at": 0.0, "state": cq.ket("0")}), "product": (cq.product, {"grid": o["grid"], "density": flat, "state": cq.ket("0")}),
        "correlated": (cq.correlated, {"grid": o["grid"], "density": flat, "state": lambda z: [np.cos(z.q), np.sin(z.q)]}),
        "from_array": (cq.from_array, {"grid": o["grid"], "rho": o["start"].rho, "normalise": True, "slack": 1e-10}),
        "sampled": (cq.sampled, {"grid": o["grid"], "values": np.zeros((14, 16))}),
        "healed": (cq.healed, {"coordinates": ("q", "p"), "H_C": p**2, "H_I": [[q, 0], [0, -q]], "sigma": {"p": 1}, "excess": None, "check": "error"}),
        "linear_diosi": (cq.models.linear_diosi, {"m": 1, "lam": 1, "phi": 2, "sigma": 1}),
        "qubit_lattice": (cq.models.qubit_lattice, {"n": 2}), "well_and_barrier": (cq.models.well_and_barrier, {}), "mass": (cq.models.mass_in_superposition, {}),
        "check": (o["model"].check, {"grid": o["grid"], "t": 0.0, "mode": "error"}),
        "follow": (cq.follow, {"model": o["x"], "rho0": cq.gaussian(cq.Grid(x=(-4, 4, 32)), 0.0, 0.6, cq.ket("+")), "t": [0, 0.1], "tol": 0.1, "margin": 4.0, "save": ["purity"], "frames": [0.1], "method": "split"}),
        "generator": (cq.generator, {"model": o["model"], "grid": o["grid"], "transport": "upwind"}),
        "steady_state": (cq.steady_state, {"model": o["x"], "grid": o["wall"]}), "detailed_balance": (cq.detailed_balance, {"model": o["x"], "grid": o["wall"], "state": cq.steady_state(o["x"], o["wall"])}),
        "scalar_field": (cq.scalar_field, {"operators": [cq.sigmaz(), cq.sigmax()], "noise": 1.0, "coupling": 1.0, "H": None, "periodic": True}),
        "thermal": (cq.thermal, {"coordinates": ("x",), "H": [[x**2, 0.5], [0.5, x**2]], "beta": 1.0, "mobility": {"x": 0.5}}),
        "temple": (cq.temple, {"model": o["model"], "grid": o["grid"]}), "church": (cq.church, {"model": o["model"], "z": {"q": 0, "p": 0}, "dt": 0.1}),
        "decoherence_diffusion": (cq.decoherence_diffusion, {"model": o["model"], "grid": o["grid"]}),
        "adjoint": (cq.adjoint, {"model": o["x"], "grid": o["wall"], "observable": cq.sigmaz(), "t": 0.1}),
        "map_positivity": (cq.map_positivity, {"model": o["x"], "start": o["bump"], "t": [0, 0.1]}),
        "mean_field_validity": (cq.mean_field_validity, {"model": o["model"], "solution": o["sol"]}),
        "validate": (cq.validate, {"sol": o["sol"], "ens": o["ens"], "level": 0.01, "times": None}), "validate arrays": (cq.validate, {"sol": o["sol"], "ens": o["arrays"]}),
        "validate parts": (lambda **k: cq.validate(o["sol"], k), dict(o["arrays"])),
        "extend": (cq.extend, {"ens": o["ens"], "model": o["model"], "rho0": o["start"], "trajectories": 20}),
        "correlation": (cq.correlation, {"ens": o["ens"], "first": "q", "second": "p"}), "spectrum": (cq.spectrum, {"ens": o["ens"], "name": "q"}),
        "save": (cq.save, {"dataset": o["sol"], "path": "/nowhere/at/all.nc"}), "load": (cq.load, {"path": "/nowhere/at/all.nc", "lazy": None}),
        "ghz": (cq.ghz, {"n": 3}), "w_state": (cq.w_state, {"n": 3}), "product_ket": (lambda **k: cq.product_ket(*k.values()), {"a": [cq.ket("+")] * 2}),
        "from_qobj": (cq.from_qobj, {"terms": [(q, cq.sigmaz())]}),
        "marginal": (at("marginal"), {"axis": "q"}), "expect": (at("expect"), {"O": cq.sigmaz()}), "moment": (at("moment"), {"of": "q", "O": cq.sigmaz()}),
        "conditional_state": (lambda **k: o["sol"].cq.conditional_state(**k), {"q": 0.3, "p": (0, None)}), "entropy": (at("entropy"), {"of": "total"}),
        "coherence": (lambda **k: o["sol"].cq.coherence("q", **k), {"levels": (0, 1)}), "distance": (at("distance"), {"other": o["sol"], "kind": "trace"}),
        "purity": (at("purity"), {"of": "conditional"}), "covariance": (at("covariance"), {"axis": "q", "O": cq.sigmaz()}), "energy": (at("energy"), {"model": o["model"]}),
        "current": (at("current"), {"model": o["model"]}), "populations": (at("populations"), {"axis": "q"}), "bloch": (at("bloch"), {"axis": "q"}),
        "record_operator": (cq.record_operator, {"model": o["x"], "z": np.zeros(1), "dz": np.zeros(1), "dt": 0.1}), "measured": (cq.measured, {"operator": cq.sigmaz(), "efficiency": 0.5, "bandwidth": 1.0}),
        "solve_sites": (cq.solve_sites, {"model": cq.models.lattice_site(), "start": lambda psi: cq.gaussian(cq.Grid(phi=(-6, 6, 12), pi=(-8, 8, 14)), 0, 0.8, psi), "state": cq.ghz(2), "t": [0, 0.1]}),
        "condition": (cq.condition, {"model": o["x"], "state": cq.ket("+"), "t": [0, 0.1], "record": [[0.0], [0.1]]}),
        "thermodynamics": (cq.thermodynamics, {"solution": o["sol"], "H": [[q, 0], [0, -q]], "beta": 1.0}), "thermal_state": (cq.thermal_state, {"grid": o["wall"], "coordinates": ("x",), "H": [[x, 0], [0, -x]], "beta": 1.0}),
        "probability": (lambda **k: o["sol"].cq.probability(**k), {"q": (0, 1)}),
    }  # fmt: skip


calls = cache(_calls)


@st.composite
def argument_cases(draw: Any) -> Case:
    """A call with junk in one or two places."""
    name = draw(st.sampled_from(sorted(calls())))
    function, arguments = calls()[name]
    given = dict(arguments)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
        if given:
            key, value = draw(st.sampled_from(sorted(given))), draw(junk)
            if isinstance(value, int) and 1000 < value < 10**9:
                continue
            given[key] = value
    words = {k: " ".join(repr(v).split())[:90] for k, v in given.items()}
    return Case("arguments", {"call": name, **words}, lambda: function(**given), lambda value: None)


KINDS = {"arguments": argument_cases()}
