"""Formulas from text: what they mean, what is refused, and that refusing is cheap and complete."""

from __future__ import annotations

import math
import string
import time
from fractions import Fraction

import numpy as np
import pytest
import sympy
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cqpde import expressions, operators
from cqpde.errors import ConfigError
from cqpde.expressions import MAX_CALLS, MAX_DEPTH, MAX_DIGITS, MAX_NODES, MAX_TEXT, parse, parse_matrix

Q, P, T, G = sympy.symbols("q p t g", real=True)
A = sympy.Matrix([[Q, 2], [sympy.I, P]])
NAMES = {"q": Q, "p": P, "t": T, "g": G, "A": A, "number": G, "λ": T}
POINTS = [dict(zip((Q, P, T, G), z, strict=True)) for z in ((0.3, -1.2, 0.7, 2.0), (-0.8, 0.5, 1.9, -0.4))]


def numeric(formula, point):
    """Value of a formula or matrix at a point, as complex numbers."""
    symbols = list(point)
    values = sympy.lambdify(symbols, formula, modules=["scipy", "numpy"])(*[np.complex128(point[s]) for s in symbols])
    return np.asarray(values, dtype=complex)


# ---- meaning --------------------------------------------------------------------------------------------------------

SCALARS = {
    "p**2/(2*g) + q": P**2 / (2 * G) + Q,
    "1/3": sympy.Rational(1, 3),
    "-2**2": sympy.Integer(-4),
    "2**-1": sympy.Rational(1, 2),
    "2**3**2": sympy.Integer(512),
    "8/4/2": sympy.Integer(1),
    "1 - 2 - 3": sympy.Integer(-4),
    "+q - -p": Q + P,
    "1e-3*q": sympy.Float(1e-3) * Q,
    "2j*q": 2 * sympy.I * Q,
    "0.5j": sympy.Float(0.5) * sympy.I,
    "sin(pi/6)": sympy.Rational(1, 2),
    "sqrt(2)": sympy.sqrt(2),
    "exp(I*pi)": sympy.Integer(-1),
    "exp(-q**2/2)": sympy.exp(-(Q**2) / 2),
    "tanh(sqrt(1 + q**2))": sympy.tanh(sympy.sqrt(1 + Q**2)),
    "abs(-3)": sympy.Integer(3),
    "number*λ": G * T,
    "atan2(p, q)": sympy.atan2(P, Q),
    "conj(q + I*p)": Q - sympy.I * P,
    "heaviside(0)": sympy.Rational(1, 2),
    " q\n + \t p ": Q + P,
}


@pytest.mark.parametrize("text", SCALARS)
def test_scalars_mean_what_they_say(text):
    assert parse(text, NAMES, "H") == SCALARS[text]


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("erf(q) + sign(p)*abs(q)", lambda q, p: __import__("math").erf(q) + np.sign(p) * abs(q)),
        ("heaviside(q) + atan(p)", lambda q, p: (q > 0) + np.arctan(p)),
        ("sinh(q)*cosh(p) - tan(q)", lambda q, p: np.sinh(q) * np.cosh(p) - np.tan(q)),
        ("log(1 + q**2)*cos(p)", lambda q, p: np.log(1 + q * q) * np.cos(p)),
        (
            "exp(2) + erf(0.3) - tanh(I) + log(7)*sign(-2)",
            lambda q, p: np.exp(2) + 0.3286267594591274 - 1j * np.tan(1) - np.log(7),
        ),
        ("sqrt(2) + sqrt(3) + sqrt(5) + sqrt(7) + sqrt(11)", lambda q, p: np.sqrt([2, 3, 5, 7, 11]).sum()),
    ],
)
def test_functions_have_their_values(text, python):
    formula = parse(text, NAMES, "H")
    for point in POINTS:
        q, p = point[Q], point[P]
        real = sympy.lambdify([Q, P], formula, modules=["scipy", "numpy"])(q, p)
        assert abs(complex(real) - python(q, p)) < 1e-14 * 30


def test_constants_are_exact_while_short():
    assert parse("sqrt(2)/2 + 1/3", NAMES, "H") == sympy.sqrt(2) / 2 + sympy.Rational(1, 3)
    long = parse("sqrt(2) + sqrt(3) + sqrt(5) + sqrt(7) + sqrt(11)", NAMES, "H")
    assert long.has(sympy.Float) and float(long) == pytest.approx(np.sqrt([2, 3, 5, 7, 11]).sum(), rel=1e-15)


MATRICES = {
    "sigmax": operators.sigmax(),
    "sigmay": operators.sigmay(),
    "sigmaz": operators.sigmaz(),
    "sigmap": operators.sigmap(),
    "sigmam": operators.sigmam(),
    "identity": np.eye(2),
    "identity(3)": np.eye(3),
    "destroy(5)": operators.destroy(5),
    "number(4)": np.diag([0, 1, 2, 3]),
    "dag(destroy(5))*destroy(5)": np.diag(np.arange(5)),
    "proj(3, 0, 2)": np.outer(operators.basis(3, 0), operators.basis(3, 2)),
    "proj(3, 1)": np.outer(operators.basis(3, 1), operators.basis(3, 1)),
    "sigmax*sigmay": 1j * operators.sigmaz(),
    "sigmay*sigmax": -1j * operators.sigmaz(),
    "sigmax*sigmay*sigmap": operators.sigmax() @ operators.sigmay() @ operators.sigmap(),
    "sigmaz + 2": np.diag([3.0, 1.0]),
    "2 - sigmaz": np.diag([1.0, 3.0]),
    "(sigmax + I*sigmay)/2": operators.sigmap(),
    "(1 + 2*sigmax)**3": np.linalg.matrix_power(np.eye(2) + 2 * operators.sigmax(), 3),
    "sigmax**0": np.eye(2),
    "tensor(sigmaz, destroy(3))": operators.tensor(operators.sigmaz(), operators.destroy(3)),
    "tensor(sigmax, sigmay, sigmap)": operators.tensor(operators.sigmax(), operators.sigmay(), operators.sigmap()),
    "dag(I*sigmap)": -1j * operators.sigmam(),
    "-sigmax": -operators.sigmax(),
}


@pytest.mark.parametrize("text", MATRICES)
def test_operators_agree_with_the_arrays(text):
    matrix = parse(text, NAMES, "H")
    assert isinstance(matrix, sympy.ImmutableMatrix)
    assert np.allclose(np.array(matrix.evalf(17).tolist(), dtype=complex), MATRICES[text], rtol=0, atol=1e-14)


def test_declared_matrices_multiply_from_the_left():
    assert parse("A*A - q*A", NAMES, "H") == sympy.ImmutableMatrix(A * A - Q * A)
    assert parse("A*sigmax", NAMES, "H") != parse("sigmax*A", NAMES, "H")


@pytest.mark.parametrize(
    "text",
    [
        "A", "q*sigmap + sqrt(q)*sigmam", "log(p)*sigmap", "(q**p)*sigmap", "exp(I*q*p)*sigmap/(q + I)", "A*A*A",
        "sqrt(1 + q**2)*sigmay", "abs(q + I*p)*sigmap", "sin(q + I*p)*heaviside(q)*sigmay", "conj(sqrt(q))*sigmap",
        "q**(1/3)*exp(I*t)*sigmay", "atan(q/p)*sign(q)*sigmam", "2**(I*q)*sigmap",
    ],
)  # fmt: skip
def test_dag_is_the_conjugate_transpose(text):
    """Also on the cuts of sqrt and log, where conj(f(x)) is not f(conj(x)): the points have negative coordinates."""
    matrix, dagger = parse(text, NAMES, "L"), parse(f"dag({text})", NAMES, "L")
    for point in POINTS:
        assert np.allclose(numeric(dagger, point), numeric(matrix, point).conj().T, rtol=1e-13, atol=1e-13)


def test_replacing_i_would_not_be_the_conjugate():
    """The twin of the test above: the tempting shortcut is wrong on a cut, and the comparison sees it."""
    root = parse("sqrt(q)", NAMES, "L")
    point = POINTS[1]
    assert abs(numeric(root.xreplace({sympy.I: -sympy.I}), point) - numeric(root, point).conj()) > 1
    assert abs(numeric(parse("conj(sqrt(q))", NAMES, "L"), point) - numeric(root, point).conj()) < 1e-15


def test_real_formulas_stay_plain_under_conj():
    for text in ("q*p", "abs(q)", "heaviside(q - 1)", "sqrt(1 + q**2)", "tanh(q)/(1 + p**2)", "sign(q)*erf(p)"):
        assert not parse(f"conj({text})", NAMES, "H").has(sympy.conjugate)


arithmetic = st.recursive(
    st.sampled_from(["q", "p", "t", "g"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/"]), inner).map(" ".join),
        inner.map(lambda a: f"-{a}"),
        inner.map(lambda a: f"({a})"),
        st.tuples(inner, st.sampled_from(["**2", "**-1", "**3", "**-2**2"])).map("".join),
    ),
    max_leaves=10,
)


@given(arithmetic)
@settings(max_examples=200)
def test_arithmetic_has_the_precedence_of_python(text):
    """Exact: Python's own value of the text in rational numbers."""
    values = {"q": Fraction(3, 10), "p": Fraction(-6, 5), "t": Fraction(7, 4), "g": Fraction(-2, 3)}
    try:
        expected = eval(text, {}, values)
    except ZeroDivisionError:
        return
    assume(
        isinstance(expected, int | Fraction)
    )  # Python leaves the rationals at fractional powers, the parser stays exact
    try:
        formula = parse(text, NAMES, "H")
    except ConfigError as error:
        assert "exponent" in str(error) or "nested" in str(error)  # repeated powers beyond the limit
        return
    found = formula.subs({NAMES[name]: sympy.Rational(*v.as_integer_ratio()) for name, v in values.items()})
    assert found == sympy.Rational(*expected.as_integer_ratio())


# ---- refusals -------------------------------------------------------------------------------------------------------

REFUSED = {
    "": "empty",
    "  \n ": "empty",
    "q +": "well-formed",
    "(q": "well-formed",
    "q p": "well-formed",
    "lambda*q": "'lambda' is a word of Python",
    "q # energy": "comment",
    "sigmx": "Did you mean 'sigmax'",
    "sine(q)": "Did you mean 'sin'",
    "sqrt": "followed by its arguments",
    "q(2)": "only functions",
    "(sin)(q)(p)": "only named functions",
    "q.real": "an attribute",
    "().__class__.__base__": "an attribute",
    "A[0]": "square brackets",
    "lambda: q": "a lambda",
    "[q for q in p]": "a comprehension",
    "{q for q in p}": "a comprehension",
    "[q, p]": "a list",
    "(q, p)": "a tuple",
    "{1: 2}": "a dictionary",
    "q < p": "a comparison",
    "q and p": "a logical operation",
    "q if p else t": "a condition",
    "(q := 2)": "an assignment",
    "'q'": "a string",
    "f'{q}'": "a formatted string",
    "b'q'": "a string",
    "__import__('os')": "function must be known",
    "sin(*A)": "plain formulas",
    "sin(x=q)": "plain formulas",
    "True": "must be a number",
    "None": "must be a number",
    "...": "must be a number",
    "q^2": r"Write \*\* for a power",
    "sigmax @ sigmay": "product of operators",
    "q % 2": "'%'",
    "q // 2": "'//'",
    "~q": "'~'",
    "not q": "'not'",
    "sin()": "takes 1 argument",
    "sin(q, p)": "takes 1 argument",
    "atan2(q)": "takes 2 argument",
    "proj(2)": "takes 2 to 3 argument",
    "sin(sigmax)": "takes scalars",
    "dag(q)": "takes operators",
    "tensor(sigmax, q)": "takes operators",
    "sigmax*destroy(3)": "same dimension",
    "sigmax + destroy(3)": "same dimension",
    "1/sigmax": "cannot be divided by",
    "sigmax**-1": "integer from 0",
    "sigmax**0.5": "integer from 0",
    "2**sigmax": "exponent must be a scalar",
    "destroy(0)": "1 ... 64",
    "destroy(2.0)": "integers",
    "destroy(q)": "integers",
    "proj(2, 0, 2)": "0 ... 1",
    "tensor(number(9), number(9))": "64 levels",
    "1/0": "division by zero",
    "1/(q - q)": "division by zero",
    "0**-1": "division by zero",
    "(q**64)**64": "exponent",
    "log(0)": "finite",
    "tan(pi/2)": "finite",
    "1e400": "finite",
    "1e400j": "finite",
    "nan": "declared",
    "\x00": "well-formed",
    "\ud800": "well-formed",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused_with_reason(text):
    with pytest.raises(ConfigError, match=REFUSED[text]) as caught:
        parse(text, NAMES, "model.H")
    assert caught.value.argument == "model.H"
    assert str(caught.value).startswith("model.H: ")


def test_text_is_never_run(tmp_path):
    """Whatever Python could be made to do by running the text would create this file."""
    trap = tmp_path / "trap"
    for text in (
        f"open('{trap}', 'w')",
        f"__import__('pathlib').Path('{trap}').touch()",
        f"q.__class__.__init__.__globals__['open']('{trap}', 'w')",
        f"sqrt(open('{trap}', 'w'))",
        f"exp(f\"{{open('{trap}', 'w')}}\")",
    ):
        for read in (parse, parse_matrix):
            with pytest.raises(ConfigError):
                read(text, NAMES, "H")
    assert not trap.exists()
    sympy.sympify(f"__import__('pathlib').Path('{trap}').touch()")  # the twin: such a text does run elsewhere
    assert trap.exists()


HOSTILE = {
    "tower": "9**9**9",
    "tower of exp": "exp(exp(exp(9)))",
    "long tower": "**".join("9" * 50),
    "coefficient": "((((2*q)**64)**64)**64)**64",
    "power of a product": "(2*q)**(10**30)",
    "merged exponents": "2**(10**30*q)*2**(10**30 - 10**30*q)",
    "exp of log": "exp(10**30*log(2*q))",
    "root of a tower": "(10**39)**(10**20/3)",
    "infinite root": "cosh((I*sqrt(63))**(1/10**30))",
    "float tower": "(1e300)**(1e300)",
    "deep parentheses": "(" * 900 + "1" + ")" * 900,
    "open parentheses": "(" * 2000,
    "signs": "-" * 1999 + "1",
    "nots": "not " * 499 + "1",
    "right chain": "**".join("q" * 300),
    "many terms": "+".join("q" * 1000),
    "deep calls": "sin(" * 300 + "q" + ")" * 300,
    "long name": "x" * 2000,
    "long text": "1+" * 10**6 + "1",
    "many digits": "9" * 1900,
    "matrix power": "tensor(A, A, A, A, A, A)**64",
    "matrix powers": "((q*sigmax + p*sigmaz + t)**64*(q*sigmax + p*sigmay + t)**63)**64",
    "dense products": "*".join(["tensor(A, A, A, A)"] * 40),
    "huge tensor": "tensor(" + ",".join(["sigmax"] * 300) + ")",
    "huge dimension": "destroy(10**9)",
    "imaginary part of nested functions": "tanh((sin(q**p)**63 + log(q))**7*exp(I*q/(p + log(p))))",
    "attributes": "q" + ".a" * 900,
    "calls": "q" + "()" * 900,
    "unicode": "\U0001d52e" * 500,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused_at_once(name):
    fastest = math.inf
    for _ in range(3):  # neither what is imported at first use counts, nor a collection of what other tests left behind
        start = time.process_time()
        with pytest.raises(ConfigError) as caught:
            parse(HOSTILE[name], NAMES, "model.H")
        fastest = min(fastest, time.process_time() - start)
    assert fastest < 0.2
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "text",
    [
        "abs(" + "*".join(f"(q + p + {i}*I)" for i in range(30)) + " + 1)",  # SymPy expands |sum|**2: 2**30 terms
        "sign((sqrt(2) + sqrt(3) + sqrt(5) + sqrt(7))**2 - 17.3)",
        "heaviside(tan(q/p + sinh(p*tan(q/p))))",
        "sqrt((sinh(64) - (pi - 1)/(1 + cosh(66)))*cosh(erf(tanh(63 + erf(2j)))))",
        "tensor(A, A, A)*tensor(A, A, A)",
        "+".join(["q*p"] * 80),
    ],
)
def test_laborious_but_sound_text_is_read_quickly(text):
    fastest = math.inf
    for _ in range(3):
        start = time.process_time()
        parse(text, NAMES, "H")
        fastest = min(fastest, time.process_time() - start)
    assert fastest < 0.5


@pytest.mark.parametrize(
    ("make", "limit", "word"),
    [
        (lambda n: "q" + " " * (n - 1), MAX_TEXT, "characters"),
        (lambda n: "+".join("q" * ((n + 1) // 2)), MAX_NODES - 1, "parts"),
        (lambda n: "-" * (n - 1) + "q", MAX_DEPTH, "nested"),
        (lambda n: "sin(" * n + "q" + ")" * n, MAX_CALLS, "nested"),
        (lambda n: "1" * n, MAX_DIGITS, "digits"),
        (lambda n: f"q**{n}", 64, "exponent"),
        (lambda n: f"2**(q/{n})", 1000, "exponent"),
        (lambda n: f"identity({n})", 64, "levels"),
        (lambda n: f"sigmax**{n}", 64, "power"),
    ],
)
def test_limits_are_where_they_say(make, limit, word):
    parse(make(limit), NAMES, "H")
    with pytest.raises(ConfigError, match=word):
        parse(make(limit + 2), NAMES, "H")


def test_declared_names_are_checked():
    for names, word in (
        ({"I": Q}, "constant or operator"),
        ({"sigmax": A}, "constant or operator"),
        ({"B": sympy.zeros(2, 3)}, "square"),
        ({"B": "q"}, "must be a number"),
    ):
        with pytest.raises(ConfigError, match=word):
            parse("1", names, "H")
    with pytest.raises(ConfigError, match="must be text"):
        parse(2, NAMES, "H")
    assert parse("\u03d5**2", {"\u03d5": Q}, "H") == Q**2  # Python's parser turns this phi into another one


# ---- fuzz -----------------------------------------------------------------------------------------------------------

TOKENS = [
    *NAMES, *expressions._FUNCTIONS, *"+-*/()[]{}.,:;=<>^~@%&|!\\\"'#", "**", "**", "(", ")", "(", ")", "lambda", "not", "in",
    "2", "0", "1e300", "10**30", "63", "0.5", "2j", "I", "pi", "sigmay", "\n", " ", "_", "if", "...", "1/3",
]  # fmt: skip


@given(
    st.one_of(
        st.text(max_size=80),
        st.text(string.printable, max_size=200),
        st.lists(st.sampled_from(TOKENS), max_size=30).map("".join),
    )
)
@settings(max_examples=400)
def test_nothing_but_refusals_escapes(text):
    try:
        result = parse(text, NAMES, "H")
    except ConfigError:
        return
    assert isinstance(result, (sympy.Expr, sympy.ImmutableMatrix))


formulas = st.recursive(
    st.sampled_from(["q", "p", "A", "sigmay", "2", "0", "1/3", "0.5", "2j", "I", "pi", "63", "10**30", "1e200"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "**"]), inner).map(lambda c: f"({c[0]}){c[1]}({c[2]})"),
        st.tuples(st.sampled_from(sorted(expressions._FUNCTIONS)), inner).map(lambda c: f"{c[0]}({c[1]})"),
    ),
    max_leaves=25,
)


@given(formulas)
@settings(max_examples=300)
def test_well_formed_formulas_end_quickly(text):
    start = time.process_time()
    try:
        result = parse(text, NAMES, "H")
    except ConfigError:
        pass
    else:
        entries = result if isinstance(result, sympy.MatrixBase) else [result]
        assert not any(e.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo) for e in entries)
    assert time.process_time() - start < 2


@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.complex_numbers(),
            st.text(max_size=8),
            st.just("q"),
        ),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=9,
    )
)
@settings(max_examples=150)
def test_any_value_is_a_matrix_or_a_refusal(value):
    try:
        result = parse_matrix(value, NAMES, "H")
    except ConfigError:
        return
    assert isinstance(result, (sympy.Expr, sympy.ImmutableMatrix))


# ---- matrices -------------------------------------------------------------------------------------------------------


def test_matrix_from_rows():
    matrix = parse_matrix([[1, "q"], ["conj(I*p)", 0.5]], NAMES, "H")
    assert matrix == sympy.ImmutableMatrix([[1, Q], [-sympy.I * P, sympy.Float(0.5)]])
    assert parse_matrix([["q", 2, 3]], NAMES, "D1").shape == (1, 3)
    assert parse_matrix(2, NAMES, "H") == 2
    assert parse_matrix(np.float64(0.25), NAMES, "H") == sympy.Float(0.25)
    assert parse_matrix(1 - 2j, NAMES, "H") == sympy.Float(1) - 2 * sympy.I
    assert parse_matrix("q*sigmaz", NAMES, "H") == sympy.ImmutableMatrix([[Q, 0], [0, -Q]])


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ([], "rows"), ([[]], "same number"), ([1, 2], "rows"), ([[1, 2], [3]], "same number"), ([[1], 2], "rows"),
        ([["sigmax"]], "scalar"), ([[None]], "must be a number"), (True, "must be a number"), ({}, "must be a number"),
        (float("nan"), "finite"), (float("inf"), "finite"), (10**40, "digits"), ([[1] * 65], "64 rows"),
        ([["q" + " " * 1500 + "+ 1"] * 20], "20000 characters"), ([[[1]]], "must be a number"),
    ],
)  # fmt: skip
def test_bad_matrices_are_refused(value, word):
    with pytest.raises(ConfigError, match=word):
        parse_matrix(value, NAMES, "H")


def test_a_bad_entry_is_named():
    with pytest.raises(ConfigError, match=r"model\.H\[1\]\[0\]: every name"):
        parse_matrix([[1, 0], ["r", 1]], NAMES, "model.H")


def test_nesting_without_end_is_refused():
    value: list = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(ConfigError):
        parse_matrix(value, NAMES, "H")
