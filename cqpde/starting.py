"""Configuration files to start from: what ``cqpde init`` prints."""

from __future__ import annotations

import inspect

from . import models
from .errors import ConfigError, did_you_mean
from .grid import Grid

_TAIL = """
[solver]
tol = 1e-4                          # bound of the time error, integrated trace norm
# method = "auto"                   # split, fv
# positivity = "exact"              # every factor completely positive to round-off
# follow = true                     # a moving window: [grid] then needs to hold the initial state only
# save = ["marginal q", "purity", "entropy mutual", "expect q*sigmaz"]   # kept at every time; full fields then only at frames
# frames = [1.0]
"""

_HAMILTONIAN = """# The healed semi-classical equations (11)-(12) from Hamiltonians. Run: cqpde run FILE.toml
[model]
name = "my model"
pairs = [["q", "p"]]                # canonical pairs
H_C = "p**2/(2*m) + k*q**2/2"       # classical Hamiltonian
H_I = "g*q*sigmaz + drive*sigmax"   # interaction: operators sigmax ... destroy(n), proj(d, a, b), tensor(A, B), or a matrix of formulas
sigma = { p = "noise" }             # dP = ... + sigma dW; may depend on q, p, t

[model.parameters]
m = 1.0
k = 1.0
g = 0.5
drive = 0.3
noise = 1.0

[grid]
q = [-6, 6, 64]                     # lower, upper, cells, optionally the ends: "open" (default), "periodic", "reflecting", ...
p = [-7, 7, 72]

[initial]
kind = "gaussian"                   # or "point", "product"
mean = { q = 0.5, p = 0.0 }
std = { q = 0.5, p = 0.5 }
state = "+"                         # a label, a ket [0.6, "0.8*I"] or a density matrix

[time]
end = 1.0
outputs = 11
"""

_GENERAL = """# The general master equation by its coefficients (README: Stating a model). Run: cqpde run FILE.toml
[model]
name = "my model"
coordinates = ["q", "p"]
dim = 2
H = "drive*sigmax + g*q*sigmaz"
L = ["sigmaz", "sigmam"]            # Lindblad operators
D0 = [["g**2/(4*s2)", 0], [0, "decay"]]   # decoherence; "saturated" is the least that is physical
D1 = { p = ["-g/2", 0] }            # back-reaction: coordinate = [one entry per operator]; dp = 2 Re(D1 <L>) dt
D2 = { p = "s2/2" }                 # diffusion: sigma sigma^T / 2
D1C = { q = "p", p = "-q" }         # classical drift

[model.parameters]
drive = 0.5
g = 1.0
s2 = 1.0
decay = 0.2

[grid]
q = [-6, 6, 64]                     # lower, upper, cells, optionally the ends: "open" (default), "periodic", "reflecting", ...
p = [-7, 7, 72]

[initial]
kind = "gaussian"                   # or "point", "product"
mean = { q = 0.5, p = 0.0 }
std = { q = 0.5, p = 0.5 }
state = "+"                         # a label, a ket [0.6, "0.8*I"] or a density matrix

[time]
end = 1.0
outputs = 11
"""

FORMS = {"hamiltonian": _HAMILTONIAN, "general": _GENERAL}


def starting_file(name: str) -> str:
    """A commented TOML file: of a shipped model with its parameters and grid, or of one of the two forms of a model of one's own.

    Raises
    ------
    ConfigError
        If the name is neither.
    """
    if name in FORMS:
        return FORMS[name] + _TAIL
    if name not in models.CATALOGUE:
        known = [*models.CATALOGUE, *FORMS]
        raise ConfigError("MODEL", "must be a shipped model or a form", repr(name), did_you_mean(name, known))
    make = models.CATALOGUE[name]
    setup = models.setup(name)
    rows = {k: v.default for k, v in inspect.signature(make).parameters.items()}
    parameters = "".join(f"{k} = {v!r}\n" if isinstance(v, int | float) else f'# {k} = "{v}"\n' for k, v in rows.items())
    own = "".join(f"# {k} = {v!r}                  (the model's own choice)\n" for k, v in getattr(setup, "options", {}).items())
    summary = (inspect.getdoc(inspect.getmodule(make)) or "").splitlines()[0]
    times = setup.times
    return (
        f"# {summary}\n# Run: cqpde run FILE.toml\n[model]\nname = \"{name}\"\n\n[model.parameters]\n{parameters}\n{_grid(setup.grid)}\n"
        f"[time]\nstart = {float(times[0])!r}\nend = {float(times[-1])!r}\noutputs = {len(times)}\n\n"
        f"# The initial state is the model's own: {setup.rho0.note or 'see its docstring'}. To choose another one:\n"
        '# [initial]\n# kind = "gaussian"\n'
        f"# mean = {{ {', '.join(f'{n} = 0.0' for n in setup.grid.names)} }}\n# std = {{ {', '.join(f'{n} = 0.4' for n in setup.grid.names)} }}\n# state = \"+\"\n"
        + _TAIL.replace("marginal q", f"marginal {setup.grid.names[0]}").replace(', "expect q*sigmaz"', "")
        + own
    )


def _grid(grid: Grid) -> str:
    rows = ["[grid]                              # lower, upper, cells, the two ends"]
    for a in grid.axes:
        ends = ", ".join(f'"{end}"' for end in a.ends)
        rows.append(f"{a.name} = [{a.lower!r}, {a.upper!r}, {a.n}, [{ends}]]")
    return "\n".join(rows) + "\n"
