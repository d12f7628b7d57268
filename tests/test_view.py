"""The HTML page, driven in a headless Chromium: slider, selection, pointer; pixels and read-out against the numbers."""

from __future__ import annotations

import io
import re
import shutil

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

import cqpde as cq
from cqpde.errors import OptionError

from .hybrid_states import branches, dataset, normal, random_state, times_state

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Debian's packages chromium and chromium-driver are not installed")

GRID = cq.Grid(q=(-6, 6, 96), p=(-9, 9, 120))
TIMES = [0.0, 0.3, 1.0]
BOX = {"left": 62, "top": 14, "width": 440, "height": 430}


@pytest.fixture(scope="module")
def solution():
    return dataset(GRID, [branches(GRID, t, 0.3) for t in TIMES], times=TIMES)


@pytest.fixture(scope="module")
def browser(solution, tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    path = tmp_path_factory.mktemp("view") / "a.html"
    cq.plot.view(solution, path)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1050,720", "--force-device-scale-factor=1"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.get(f"file://{path}")
    yield driver
    driver.quit()


def _choose(browser, name, value):
    script = "const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('input'));"
    browser.execute_script(script, name, value)


def _place(browser, q, p):
    """Canvas pixel of a point of the (q, p) plane, from the page's own box."""
    low, high = browser.execute_script("return [data.planes[0].lower, data.planes[0].upper]")
    x = BOX["left"] + (q - low[0]) / (high[0] - low[0]) * BOX["width"]
    y = BOX["top"] + (high[1] - p) / (high[1] - low[1]) * BOX["height"]
    return x, y


def _screenshot(browser):
    return np.asarray(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")).astype(int)


def _pixel(browser, q, p):
    corner = browser.execute_script("const r = document.getElementById('picture').getBoundingClientRect(); return [r.left, r.top]")
    x, y = _place(browser, q, p)
    return _screenshot(browser)[int(corner[1] + y), int(corner[0] + x)]


def _point(browser, q, p):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    canvas = browser.find_element(By.ID, "picture")
    x, y = _place(browser, q, p)
    ActionChains(browser).move_to_element_with_offset(canvas, int(x - 300), int(y - 250)).perform()
    return browser.find_element(By.ID, "readout").text


@needs_browser
def test_the_page_shows_the_density_and_the_slider_moves_it(browser, solution):
    top = np.array(colormaps["viridis"](1.0)[:3]) * 255
    bottom = np.array(colormaps["viridis"](0.0)[:3]) * 255
    _choose(browser, "quantity", 0)
    for k, t in enumerate(TIMES):
        _choose(browser, "time", k)
        f = solution.cq.density()[k]
        at = np.unravel_index(int(np.argmax(f.values)), f.shape)
        peak = _pixel(browser, float(f.q[at[0]]), float(f.p[at[1]]))
        assert np.abs(peak - top).max() < 8, (t, peak)
        assert np.abs(_pixel(browser, -1.5, 5.0) - bottom).max() < 8
        assert browser.execute_script("return document.getElementById('now').textContent") == f"t = {t:g}"
    # at t = 1 the branch of |0> (weight 0.7) is at p = -2, the other at 2: half-way along viridis by their weights
    expected = float(f.sel(q=1.0, p=2.0, method="nearest") / f.max())
    assert np.abs(_pixel(browser, 1.0, 2.0) - np.array(colormaps["viridis"](expected)[:3]) * 255).max() < 12


@needs_browser
@pytest.mark.parametrize(("k", "q", "p"), [(0, 0.1, -0.2), (1, 0.3, 0.5), (2, 0.4, 0.6)])
def test_the_read_out_is_the_conditional_state_under_the_pointer(browser, solution, k, q, p):
    _choose(browser, "time", k)
    text = _point(browser, q, p)
    where = [float(x) for x in re.findall(r"[qp] = (-?[\d.]+)", text)]
    assert abs(where[0] - q) < 0.19 and abs(where[1] - p) < 0.23  # a cell and a half
    exact = solution.cq.frame(TIMES[k]).cq.conditional_state(q=where[0], p=where[1]).values
    numbers = re.search(r"conditional state.*\n(.*)\n(.*)\n", text)
    first = re.findall(r"[+-]?\s?[\d.]+", numbers[1])
    read = [float(x.replace(" ", "")) for x in first]
    assert read == pytest.approx([exact[0, 0].real, exact[0, 1].real, exact[0, 1].imag], abs=2e-4)
    vector = [float(x) for x in re.search(r"Bloch vector\n(.*)\n", text)[1].split()]
    assert vector == pytest.approx(solution.cq.frame(TIMES[k]).cq.bloch("q", "p").sel(q=where[0], p=where[1], method="nearest").values, abs=2e-4)
    assert float(re.search(r"purity ([\d.]+)", text)[1]) == pytest.approx(np.trace(exact @ exact).real, abs=1e-4)


@needs_browser
def test_elements_and_marginals_can_be_chosen(browser, solution):
    _choose(browser, "time", 1)
    names = browser.execute_script("return quantities.map(q => q.name)")
    _choose(browser, "quantity", next(i for i, n in enumerate(names) if n.startswith("coherence")))
    rho01 = solution.cq.coherence("q", "p")[1]
    at = np.unravel_index(int(np.argmax(np.abs(rho01.values))), rho01.shape)
    q, p, value = float(rho01.q[at[0]]), float(rho01.p[at[1]]), complex(rho01[at])
    assert np.abs(_pixel(browser, q, p) - 255 * cq.plot.phase_colors(np.array([value]), abs(value))[0]).max() < 12
    assert _pixel(browser, -1.5, 5.0).min() > 250  # nothing: white
    _choose(browser, "plane", 1)
    curve = browser.execute_script("return document.getElementById('plane').selectedOptions[0].text")
    assert curve == "q"
    picture = browser.execute_script("return Array.from(ctx.getImageData(62, 14, 440, 430).data)")
    rgb = np.array(picture).reshape(430, 440, 4).astype(int)
    coloured = np.ptp(rgb[..., :3], axis=-1) > 60
    assert coloured.any(axis=0).mean() > 0.9  # curves of the real and the imaginary part from left to right
    _choose(browser, "plane", 0)
    _choose(browser, "quantity", 0)
    errors = [e for e in browser.get_log("browser") if e["level"] == "SEVERE"]
    assert not errors, errors


def test_a_page_needs_no_network_and_stays_small(tmp_path):
    grid = cq.Grid(**{n: (-4, 4, 24) for n in "xyuv"})
    f = normal(grid, dict.fromkeys("xyuv", 0.0), dict.fromkeys("xyuv", 0.8))
    ds = dataset(grid, [times_state(f, random_state(2, k)) for k in range(4)])
    cq.plot.view(ds, tmp_path / "b.html")
    text = (tmp_path / "b.html").read_text()
    assert not re.search(r"https?://|src=|import\(|fetch\(", text)
    assert text.count('"axes"') == 6 + 4
    assert len(text) < 2e6
    with pytest.raises(OptionError, match="full fields"):
        cq.plot.view(ds.drop_vars("rho"), tmp_path / "c.html")


def test_long_runs_are_thinned_to_the_size_of_a_page():
    from cqpde.plotting import page

    grid = cq.Grid(q=(-4, 4, 200), p=(-4, 4, 200))
    f = times_state(normal(grid, {"q": 0, "p": 0}, {"q": 1.5, "p": 1.5}), random_state(3, 0))
    ds = dataset(grid, [f] * 30)
    picked, cells = page._budget(ds, [("q", "p"), ("q",), ("p",)], "t", 3)
    assert 9 * 4 * len(picked) * cells**2 < 1.1 * page.MOST_BYTES
    assert picked[0] == 0 and picked[-1] == 29
