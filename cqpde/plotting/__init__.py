"""Pictures of solutions and ensembles (needs ``pip install "cqpde[plot]"``): every function returns a Matplotlib figure.

``cq.plot.hybrid(sol)``, ``marginals(sol, ens)``, ``bloch(ens)``, ``series(sol)``, ``convergence(h, errors)``, ``movie(sol, "a.mp4")``. Figures
are made without pyplot, so no window opens: save them with ``figure.savefig("a.pdf")``, or leave the figure as the last line of a
notebook's cell. Densities are shown in viridis, levels in the Okabe-Ito colours, phases by hue at equal lightness with lines at 0 and pi.
"""

from ..errors import OptionError

try:
    import matplotlib  # noqa: F401
except ImportError:
    raise OptionError("cqpde.plot", "needs Matplotlib", "it is not installed", 'pip install "cqpde[plot]"') from None

from .bloch import bloch
from .colors import LEVELS, phase_colors
from .lines import convergence, grid_convergence, marginals, series
from .movies import movie
from .page import view
from .panels import save_figure
from .phase_space import hybrid

__all__ = ["LEVELS", "bloch", "convergence", "grid_convergence", "hybrid", "marginals", "movie", "phase_colors", "save_figure", "series", "view"]
