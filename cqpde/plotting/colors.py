r"""Colours: phases as hues of equal lightness and chroma in OKLab, levels in the Okabe-Ito palette, densities in viridis.

OKLab (B. Ottosson, 2020) is a perceptual colour space: equal steps of hue look equal at fixed lightness. Hue alone does not reach every
eye, so pictures of phases also carry lines at phase 0 and pi.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray

#: Map of densities and populations: perceptually uniform, readable with every kind of colour vision and in grey.
DENSITY = "viridis"

#: Okabe-Ito colours, distinct with every kind of colour vision; one per level or curve.
LEVELS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")

#: Lightness of the largest magnitude, and its chroma; zero is white.
DARKEST, CHROMA = 0.62, 0.13


def _oklab_to_srgb(lightness: Array, a: Array, b: Array) -> Array:
    cubes = [(lightness + x * a + y * b) ** 3 for x, y in ((0.3963377774, 0.2158037573), (-0.1055613458, -0.0638541728), (-0.0894841775, -1.2914855480))]
    matrix = np.array([[4.0767416621, -3.3077115913, 0.2309699292], [-1.2684380046, 2.6097574011, -0.3413193965], [-0.0041960863, -0.7034186147, 1.7076147010]])
    linear = np.clip(np.einsum("ij,j...->...i", matrix, np.stack(cubes)), 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def phase_colors(values: Any, largest: float | None = None) -> Array:
    """Colours of complex numbers: phase as hue, magnitude as lightness (zero: white).

    Parameters
    ----------
    values : complex array
    largest : float, optional
        Magnitude of the darkest colour; default: the largest of ``values``.

    Returns
    -------
    array, shape (*values.shape, 3)
        sRGB in [0, 1].
    """
    values = np.asarray(values, dtype=complex)
    top = float(np.nanmax(np.abs(values), initial=0.0)) if largest is None else float(largest)
    size = np.clip(np.nan_to_num(np.abs(values)) / top, 0.0, 1.0) if top > 0 else np.zeros(values.shape)
    hue = np.angle(np.nan_to_num(values)) + 0.5  # phase 0 is an orange red, pi a blue: the pair that survives most colour vision
    return _oklab_to_srgb(1.0 - (1.0 - DARKEST) * size, CHROMA * size * np.cos(hue), CHROMA * size * np.sin(hue))


def level_color(k: int) -> str:
    """Colour of a level."""
    return LEVELS[k % len(LEVELS)]
