r"""Formulas in configuration files: text to SymPy by an allow-list, without ever running the text.

``"p**2/2 + g*q*sigmaz"`` is read by Python's own parser into a syntax tree, and the tree is walked: every node must be
in a short list, every name must be declared. Nothing goes through ``eval`` or ``sympify``, which execute code.

What may be written
    numbers ``2  0.5  1e-3  2j``, ``pi``, ``I``, the declared names, ``+ - * / **`` and parentheses;
    scalar functions ``sqrt exp log sin cos tan sinh cosh tanh atan atan2 abs sign erf heaviside conj``
    (``heaviside(0) = 1/2``; ``atan2(y, x)``);
    two-level operators ``sigmax sigmay sigmaz sigmap sigmam identity`` (basis as in ``cqpde.operators``);
    operators of ``n`` levels ``destroy(n) number(n) identity(n)``, ``proj(d, a, b)`` = :math:`|a\rangle\langle b|`
    (``proj(d, a)`` = :math:`|a\rangle\langle a|`), ``tensor(A, B, ...)`` with the first factor slowest, ``dag(A)``.

``*`` of two operators is their matrix product; a scalar added to an operator stands for that multiple of the identity.

A short text can ask for unbounded work (``9**9**9``, or ``(2*x)**64`` raised again and again), so sizes are limited
before each step; the limits are the constants below. Numbers are exact while their formula is short: a constant of more
than ``MAX_EXACT`` parts is replaced by its double-precision value, as the sign of nested roots has no cheap decision.
"""

from __future__ import annotations

import ast
import cmath
import keyword
import math
import numbers
import re
import reprlib
import unicodedata
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
import sympy

from . import operators
from .errors import ConfigError, did_you_mean

MAX_TEXT = 2000  #: characters of one expression
MAX_MATRIX_TEXT = 20_000  #: characters of all entries of a matrix
MAX_NODES = 400  #: numbers, names, operations and calls in one expression
MAX_DEPTH = 60  #: nested parentheses, calls and powers
MAX_CALLS = 8  #: functions of coordinates inside each other
MAX_POWER = 64  #: magnitude of any number inside an exponent
MAX_ROOT = 1000  #: denominator of any fraction inside an exponent
MAX_DIGITS = 40  #: digits of an integer
MAX_VALUE = 1e300  #: magnitude of a constant
MAX_DIM = 64  #: rows of an operator
MAX_WORK = 5_000  #: products and sums of matrix elements in one expression
MAX_SIZE = 20_000  #: parts of a resulting formula
MAX_EXACT = 12  #: parts of a constant that is kept exact

_CONSTANTS = {"pi": sympy.pi, "I": sympy.I}
_QUBIT = {
    "sigmax": operators.sigmax, "sigmay": operators.sigmay, "sigmaz": operators.sigmaz,
    "sigmap": operators.sigmap, "sigmam": operators.sigmam, "identity": lambda: operators.identity(2),
}  # fmt: skip


@dataclass(frozen=True)
class _Operator:
    """A square matrix of formulas that stores only its non-zero elements: products of 64-level operators stay cheap."""

    dim: int
    elements: dict[tuple[int, int], Any]

    def to_sympy(self) -> sympy.ImmutableMatrix:
        """Return the dense matrix, shape (dim, dim)."""
        return sympy.ImmutableMatrix(sympy.SparseMatrix(self.dim, self.dim, self.elements))


@dataclass
class _Reading:
    """What is known while one expression is read: its text, the names in it, and the work done so far."""

    where: str
    names: Mapping[str, Any]
    line: str = ""
    work: int = 0
    weights: dict[Any, tuple[int, complex | None]] = field(default_factory=dict)

    def refuse(self, rule: str, found: object = "", remedy: str = "") -> ConfigError:
        return ConfigError(self.where, rule, found, remedy)

    def source(self, node: ast.expr) -> str:
        """Return the text of a node, shortened: offsets of ``ast`` count UTF-8 bytes."""
        return _short(self.line.encode("utf-8")[node.col_offset : node.end_col_offset].decode("utf-8", "replace"))

    def spend(self, steps: int) -> None:
        self.work += steps
        if self.work > MAX_WORK:
            raise self.refuse(
                f"the products of operators must take at most {MAX_WORK} products of elements",
                "more", "Build this operator in Python and pass it as an array",
            )  # fmt: skip


def parse(
    text: str, names: Mapping[str, sympy.Expr | sympy.MatrixBase], where: str
) -> sympy.Expr | sympy.ImmutableMatrix:
    """Read a formula by an allow-list, without running it.

    Parameters
    ----------
    text : str
        The formula, at most ``MAX_TEXT`` characters, e.g. ``"p**2/(2*m) + g*q*sigmaz"``.
    names : mapping of str to sympy.Expr or sympy.MatrixBase
        Every name that the formula may use besides the built-in ones: coordinates, ``t``, parameters. Symbols should be
        ``real=True``, so that ``conj`` and ``dag`` can be taken.
    where : str
        The key or argument that holds the text; the error message starts with it.

    Returns
    -------
    sympy.Expr or sympy.ImmutableMatrix
        A scalar, or a square matrix of shape (d, d).

    Raises
    ------
    ConfigError
        For anything that is not in the list of the module, unknown names, and formulas beyond the size limits.
    """
    value = _read(text, _Reading(where, _declared(names, where)))
    return value.to_sympy() if isinstance(value, _Operator) else value


def parse_matrix(
    value: Any, names: Mapping[str, sympy.Expr | sympy.MatrixBase], where: str
) -> sympy.Expr | sympy.ImmutableMatrix:
    """Read a number, a formula, or a matrix given as a list of rows of numbers and formulas.

    Parameters
    ----------
    value : int, float, complex, str, or list of lists of these
        ``0.5``, ``"x*sigmaz"`` or ``[[1, "q"], ["q", -1]]``. A matrix need not be square; its entries must be scalars.
    names, where
        As in `parse`; an entry is named ``where[row][col]`` in messages.

    Returns
    -------
    sympy.Expr or sympy.ImmutableMatrix
        A scalar for a number, what `parse` returns for a text, a matrix of shape (rows, cols) for a list.

    Raises
    ------
    ConfigError
        For other types, ragged or empty rows, more than ``MAX_DIM`` rows or columns, and whatever `parse` refuses.
    """
    if isinstance(value, str):
        return parse(value, names, where)
    if not isinstance(value, (list, tuple)):
        return _literal(value, where)
    remedy = 'Write a matrix as a list of its rows, [[1, "q"], ["q", -1]]'
    if not value or not all(isinstance(row, (list, tuple)) for row in value):
        raise ConfigError(where, "a list must hold rows, each a list", reprlib.repr(value), remedy)
    widths = sorted({len(row) for row in value})
    if len(widths) > 1 or not widths[0]:
        raise ConfigError(where, "the rows of a matrix must have the same number of entries", widths, remedy)
    if max(len(value), widths[0]) > MAX_DIM:
        raise ConfigError(where, f"a matrix must have at most {MAX_DIM} rows and columns", (len(value), widths[0]))
    characters = sum(len(entry) for row in value for entry in row if isinstance(entry, str))
    if characters > MAX_MATRIX_TEXT:
        raise ConfigError(where, f"a matrix must be written in at most {MAX_MATRIX_TEXT} characters", characters)
    declared = _declared(names, where)
    rows = [[_entry(e, declared, f"{where}[{i}][{j}]") for j, e in enumerate(row)] for i, row in enumerate(value)]
    return sympy.ImmutableMatrix(rows)


def _entry(value: Any, declared: Mapping[str, Any], where: str) -> sympy.Expr:
    if not isinstance(value, str):
        return _literal(value, where)
    result = _read(value, _Reading(where, declared))
    if isinstance(result, _Operator):
        raise ConfigError(where, "an entry of a matrix must be a scalar", "an operator", "Use tensor(A, B) for blocks")
    return result


def _read(text: str, reading: _Reading) -> Any:
    reading.line, tree = _syntax_tree(text, reading)
    try:
        return _value(tree, reading)
    except ConfigError:
        raise
    except ZeroDivisionError:
        raise reading.refuse("a division by zero has no value", repr(_short(text))) from None
    except Exception as error:  # SymPy may raise anything on a formula it cannot digest; a user must see one message
        found = f"{type(error).__name__} in {_short(text)!r}"
        raise reading.refuse("SymPy must be able to build the formula", found, "Write it in a simpler form") from error


# ---------------------------------------------------------------------------------------------------------------------
# Text to syntax tree
# ---------------------------------------------------------------------------------------------------------------------


def _syntax_tree(text: str, reading: _Reading) -> tuple[str, ast.expr]:
    """Return the formula on one line and its syntax tree, once its length, number of nodes and depth are in bounds."""
    if not isinstance(text, str):
        raise reading.refuse("a formula must be text", f"{type(text).__name__}", "Put it in quotes")
    if len(text) > MAX_TEXT:
        raise reading.refuse(f"a formula must have at most {MAX_TEXT} characters", len(text), "Build it in Python")
    if "#" in text:
        raise reading.refuse("a formula must not hold a comment", "#", "Put the comment outside of the quotes")
    line = " ".join(text.split())
    if not line:
        raise reading.refuse("a formula must not be empty", repr(_short(text)), "Write 0 for zero")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser warns of odd spellings such as 1if, which are refused anyway
            tree = ast.parse(line, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        words = [word for word in re.findall(r"[^\W\d]\w*", line) if keyword.iskeyword(word)]
        hint = f"'{words[0]}' is a word of Python and cannot be a name" if words else "Check parentheses and operators"
        detail = error.msg if isinstance(error, SyntaxError) else "nesting or characters beyond what can be read"
        raise reading.refuse(f"the formula must be well-formed ({detail})", repr(_short(line)), hint) from None
    _check_bounds(tree, reading)
    return line, tree


def _check_bounds(tree: ast.expr, reading: _Reading) -> None:
    """Refuse trees that are too large or deep, with an explicit stack: recursion is what is to be avoided."""
    stack: list[tuple[ast.AST, int]] = [(tree, 1)]
    nodes = 0
    while stack:
        node, depth = stack.pop()
        if not isinstance(node, ast.expr):  # the kind of an operation or of a name
            continue
        nodes += 1
        if nodes > MAX_NODES:
            raise reading.refuse(f"a formula must have at most {MAX_NODES} parts", "more", "Build it in Python")
        if depth > MAX_DEPTH:
            raise reading.refuse(f"a formula must be nested at most {MAX_DEPTH} levels deep", "deeper", "Split it")
        for child in ast.iter_child_nodes(node):
            # a + b + c + ... leans to the left in the tree, but is no nesting: _binary walks it in a loop
            same = isinstance(node, ast.BinOp) and child is node.left and _chained(node, child)
            stack.append((child, depth if same else depth + 1))


def _chained(node: ast.BinOp, left: ast.AST) -> bool:
    """Return whether ``left`` and ``node`` are links of one chain of sums or one chain of products."""
    chains = ((ast.Add, ast.Sub), (ast.Mult, ast.Div))
    return isinstance(left, ast.BinOp) and any(isinstance(node.op, c) and isinstance(left.op, c) for c in chains)


# ---------------------------------------------------------------------------------------------------------------------
# Syntax tree to formula
# ---------------------------------------------------------------------------------------------------------------------

_NODES = {
    ast.Attribute: "an attribute", ast.Subscript: "square brackets", ast.Lambda: "a lambda",
    ast.Compare: "a comparison", ast.BoolOp: "a logical operation", ast.IfExp: "a condition",
    ast.List: "a list", ast.Tuple: "a tuple", ast.Set: "a set", ast.Dict: "a dictionary",
    ast.ListComp: "a comprehension", ast.SetComp: "a comprehension", ast.DictComp: "a comprehension",
    ast.GeneratorExp: "a comprehension", ast.JoinedStr: "a formatted string", ast.NamedExpr: "an assignment",
}  # fmt: skip

_OPERATORS = {
    ast.BitXor: ("^", "Write ** for a power"), ast.MatMult: ("@", "Write * for the product of operators"),
    ast.Mod: ("%", ""), ast.FloorDiv: ("//", "Write / for a quotient"), ast.BitAnd: ("&", ""), ast.BitOr: ("|", ""),
    ast.LShift: ("<<", ""), ast.RShift: (">>", ""), ast.Not: ("not", ""), ast.Invert: ("~", ""),
}  # fmt: skip

_ALLOWED = "Use numbers, declared names, + - * / **, parentheses and the listed functions"


def _value(node: ast.expr, reading: _Reading) -> Any:
    """Return the SymPy scalar or the `_Operator` that a node stands for."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, (str, bytes)):
            raise reading.refuse("a formula must not hold text", f"a string, {reading.source(node)}", _ALLOWED)
        return _literal(node.value, reading.where)
    if isinstance(node, ast.Name):
        return _name(node.id, reading)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        operand = _value(node.operand, reading)
        return operand if isinstance(node.op, ast.UAdd) else _multiply(sympy.S.NegativeOne, operand, reading)
    if isinstance(node, ast.BinOp):
        return _binary(node, reading)
    if isinstance(node, ast.Call):
        return _call(node, reading)
    if isinstance(node, ast.UnaryOp):
        raise _refused_operator(node.op, reading.source(node), reading)
    what = _NODES.get(type(node), f"a {type(node).__name__}")
    raise reading.refuse("a formula must be made of allowed parts", f"{what}, {reading.source(node)}", _ALLOWED)


def _refused_operator(op: ast.AST, source: str, reading: _Reading) -> ConfigError:
    sign, remedy = _OPERATORS.get(type(op), (type(op).__name__, ""))
    return reading.refuse("the operators of a formula are + - * / **", f"'{sign}' in {source}", remedy)


def _binary(node: ast.BinOp, reading: _Reading) -> Any:
    links = [node]
    while _chained(links[-1], links[-1].left):
        links.append(links[-1].left)  # type: ignore[arg-type]  # _chained has checked that it is a BinOp
    for link in links:
        if type(link.op) not in _BINARY:
            raise _refused_operator(link.op, reading.source(link), reading)
    result = _value(links[-1].left, reading)
    for link in reversed(links):
        result = _BINARY[type(link.op)](result, _value(link.right, reading), reading)
    return result


def _name(name: str, reading: _Reading) -> Any:
    if name in reading.names:
        return reading.names[name]
    if name in _CONSTANTS:
        return _CONSTANTS[name]
    if name in _QUBIT:
        return _exact(_QUBIT[name]())
    if name in _FUNCTIONS:
        raise reading.refuse("a function must be followed by its arguments", name, f"Write {name}(...)")
    remedy = did_you_mean(name, [*reading.names, *_CONSTANTS, *_QUBIT])
    raise reading.refuse("every name must be declared", f"'{_short(name)}'", remedy)


def _call(node: ast.Call, reading: _Reading) -> Any:
    if not isinstance(node.func, ast.Name):
        raise reading.refuse("only named functions can be called", reading.source(node.func), _ALLOWED)
    name = node.func.id
    if name not in _FUNCTIONS:
        if name in reading.names or name in _CONSTANTS or name in _QUBIT:
            raise reading.refuse("only functions can be called", reading.source(node), "Write * for a product")
        raise reading.refuse("every function must be known", f"'{_short(name)}'", did_you_mean(name, _FUNCTIONS))
    if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
        raise reading.refuse(f"the arguments of {name} must be plain formulas", reading.source(node))
    function, fewest, most = _FUNCTIONS[name]
    if not fewest <= len(node.args) <= most:
        count = str(fewest) if fewest == most else f"{fewest} to {most}"
        raise reading.refuse(f"{name} takes {count} argument(s)", f"{len(node.args)} in {reading.source(node)}")
    return function(name, [_value(argument, reading) for argument in node.args], reading)


# ---------------------------------------------------------------------------------------------------------------------
# Arithmetic
# ---------------------------------------------------------------------------------------------------------------------


def _add(a: Any, b: Any, reading: _Reading) -> Any:
    if not isinstance(a, _Operator) and not isinstance(b, _Operator):
        return _settle(a + b, reading)
    a, b = _same_dim("+ or -", a, b, reading)
    reading.spend(len(a.elements) + len(b.elements))
    sums = dict(a.elements)
    for key, element in b.elements.items():
        sums[key] = _settle(sums[key] + element, reading) if key in sums else element
    return _nonzero(a.dim, sums)


def _subtract(a: Any, b: Any, reading: _Reading) -> Any:
    return _add(a, _multiply(sympy.S.NegativeOne, b, reading), reading)


def _multiply(a: Any, b: Any, reading: _Reading) -> Any:
    if isinstance(a, _Operator) and isinstance(b, _Operator):
        return _matrix_product(a, b, reading)
    if isinstance(a, _Operator):
        a, b = b, a
    if isinstance(b, _Operator):
        reading.spend(len(b.elements))
        return _nonzero(b.dim, {key: _settle(a * element, reading) for key, element in b.elements.items()})
    return _settle(a * b, reading)


def _matrix_product(a: _Operator, b: _Operator, reading: _Reading) -> _Operator:
    a, b = _same_dim("*", a, b, reading)
    rows: dict[int, list[tuple[int, Any]]] = {}
    for (k, j), element in b.elements.items():
        rows.setdefault(k, []).append((j, element))
    reading.spend(sum(len(rows.get(k, ())) for _, k in a.elements))
    sums: dict[tuple[int, int], list[Any]] = {}
    for (i, k), left in a.elements.items():
        for j, right in rows.get(k, ()):
            sums.setdefault((i, j), []).append(_settle(left * right, reading))
    return _nonzero(a.dim, {key: _settle(sympy.Add(*terms), reading) for key, terms in sums.items()})


def _divide(a: Any, b: Any, reading: _Reading) -> Any:
    if isinstance(b, _Operator):
        raise reading.refuse("an operator cannot be divided by", f"a {b.dim}-level operator after /")
    return _multiply(_power(b, sympy.S.NegativeOne, reading), a, reading)


def _power(base: Any, exponent: Any, reading: _Reading) -> Any:
    if isinstance(exponent, _Operator):
        raise reading.refuse("an exponent must be a scalar", f"a {exponent.dim}-level operator")
    if isinstance(base, _Operator):
        if not (exponent.is_Integer and 0 <= exponent <= MAX_POWER):
            rule = f"the power of an operator must be an integer from 0 to {MAX_POWER}"
            raise reading.refuse(rule, _short(str(exponent)))
        result, square, n = _exact(np.eye(base.dim)), base, int(exponent)
        while n:  # repeated squaring: powers by single steps would double the size of symbolic elements at each step
            result = _matrix_product(result, square, reading) if n & 1 else result
            n >>= 1
            square = _matrix_product(square, square, reading) if n else square
        return result
    _check_exponent(exponent, reading)
    _predict(sympy.Pow, [base, exponent], reading)
    return _settle(base**exponent, reading)


_BINARY: dict[type, Callable[[Any, Any, _Reading], Any]] = {
    ast.Add: _add, ast.Sub: _subtract, ast.Mult: _multiply, ast.Div: _divide, ast.Pow: _power,
}  # fmt: skip


def _same_dim(sign: str, a: Any, b: Any, reading: _Reading) -> tuple[_Operator, _Operator]:
    """Return both as operators of one dimension, a scalar ``c`` standing for ``c`` times the identity."""
    dim = a.dim if isinstance(a, _Operator) else b.dim
    a, b = (m if isinstance(m, _Operator) else _nonzero(dim, {(i, i): m for i in range(dim)}) for m in (a, b))
    if a.dim != b.dim:
        raise reading.refuse(
            f"the operators on both sides of {sign} must have the same dimension", f"{a.dim} and {b.dim}",
            "Extend the smaller one with tensor(A, identity(n))",
        )  # fmt: skip
    return a, b


def _nonzero(dim: int, elements: dict[tuple[int, int], Any]) -> _Operator:
    return _Operator(dim, {key: element for key, element in elements.items() if element is not sympy.S.Zero})


def _exact(array: np.ndarray) -> _Operator:
    """Return an operator with exact elements from an array of 0, 1, -1, i and -i."""
    elements = {
        (int(i), int(j)): sympy.Integer(int(array[i, j].real)) + sympy.I * int(array[i, j].imag)
        for i, j in zip(*np.nonzero(array), strict=True)
    }
    return _Operator(len(array), elements)


# ---------------------------------------------------------------------------------------------------------------------
# Functions: f(name, arguments, reading)
# ---------------------------------------------------------------------------------------------------------------------


def _scalar_function(function: Callable[..., Any], probe: Any = None) -> Callable[[str, list[Any], _Reading], Any]:
    """Return the caller of a SymPy function that has first made sure that the result is a number of bounded size."""

    def call(name: str, arguments: list[Any], reading: _Reading) -> Any:
        if any(isinstance(argument, _Operator) for argument in arguments):
            raise reading.refuse(f"{name} takes scalars", "an operator", "Apply it to each coefficient")
        value = _predict(probe or function, arguments, reading)
        if value is None:
            if max(_calls(argument) for argument in arguments) >= MAX_CALLS:
                # SymPy's search for the sign or the real part of nested functions takes exponential time
                raise reading.refuse(f"functions must be nested at most {MAX_CALLS} deep", f"more, in {name}(...)")
            return _settle(function(*arguments), reading)
        exact = all(_weigh(a, reading)[0] <= 5 and not a.has(sympy.Float) for a in arguments)
        result = function(*arguments) if exact else None
        # sin(pi/6) is worth keeping exact; of cosh(cosh(2)) even the sign costs SymPy seconds
        return _number(value) if result is None or result.has(sympy.Function) else _settle(result, reading)

    return call


def _exp(name: str, arguments: list[Any], reading: _Reading) -> Any:
    if not isinstance(arguments[0], _Operator):
        for term in sympy.Add.make_args(arguments[0]):
            if term.has(sympy.log):  # SymPy writes exp(n*log(x)) as x**n
                _check_exponent(term, reading)
    return _scalar_function(sympy.exp)(name, arguments, reading)


def _hyperbolic(function: Any) -> Callable[[str, list[Any], _Reading], Any]:
    def call(name: str, arguments: list[Any], reading: _Reading) -> Any:
        x = arguments[0]
        if not isinstance(x, _Operator) and _predict(function, arguments, reading) is None and _conj(x) != x:
            if _calls(x) or _weigh(x, reading)[0] > MAX_EXACT:
                # SymPy reduces the imaginary part modulo pi by polynomial algebra without bound
                rule = f"{name} takes a real formula, or a complex one of at most {MAX_EXACT} parts without functions"
                raise reading.refuse(rule, _short(str(x)), "Write it with exp(...)")
        return _scalar_function(function)(name, arguments, reading)

    return call


def _calls(x: Any) -> int:
    """Return how deep the functions in a formula are nested."""
    inner = max((_calls(argument) for argument in x.args), default=0)
    return inner + isinstance(x, sympy.Function)


def _inert(function: Any, *rest: Any) -> Callable[[Any], Any]:
    """Return a function that SymPy leaves alone: it expands products of sums to find signs, in exponential time."""
    return lambda x: function(x, *rest, evaluate=bool(x.is_number))


def _conj(x: Any) -> Any:
    """Return the complex conjugate, left unevaluated where a function has a cut (``sqrt``, ``log`` of a real symbol).

    A formula that comes back unchanged is real; SymPy's own rule may expand products of sums and take exponential time.
    """
    if x.is_Atom:
        return sympy.conjugate(x)
    if isinstance(x, sympy.conjugate):
        return x.args[0]
    arguments = tuple(_conj(argument) for argument in x.args)
    if isinstance(x, sympy.Abs) or (arguments == x.args and isinstance(x, _REAL_ON_REALS)):
        return x
    if isinstance(x, _CUTLESS) or (x.is_Pow and x.exp.is_Integer):
        return x if arguments == x.args else x.func(*arguments)
    if x.is_Pow and arguments[0] == x.base and x.base.is_nonnegative:
        return x if arguments == x.args else sympy.Pow(x.base, arguments[1])
    if isinstance(x, sympy.log) and arguments == x.args and arguments[0].is_positive:
        return x
    return sympy.conjugate(x, evaluate=False)


_REAL_ON_REALS = (sympy.Heaviside, sympy.atan, sympy.atan2, sympy.sign)
_CUTLESS = (
    sympy.Add, sympy.Mul, sympy.exp, sympy.sin, sympy.cos, sympy.tan, sympy.sinh, sympy.cosh, sympy.tanh, sympy.erf,
)  # fmt: skip


def _one_operator(name: str, argument: Any, reading: _Reading) -> _Operator:
    if not isinstance(argument, _Operator):
        raise reading.refuse(f"{name} takes operators", _short(str(argument)), "Use conj(x) and * for scalars")
    return argument


def _dag(name: str, arguments: list[Any], reading: _Reading) -> _Operator:
    matrix = _one_operator(name, arguments[0], reading)
    reading.spend(len(matrix.elements))
    return _Operator(matrix.dim, {(j, i): _settle(_conj(m), reading) for (i, j), m in matrix.elements.items()})


def _tensor(name: str, arguments: list[Any], reading: _Reading) -> _Operator:
    factors = [_one_operator(name, argument, reading) for argument in arguments]
    dim = math.prod(factor.dim for factor in factors)
    if dim > MAX_DIM:
        raise reading.refuse(f"a tensor product must have at most {MAX_DIM} levels", dim)

    def kron(a: _Operator, b: _Operator) -> _Operator:
        reading.spend(len(a.elements) * len(b.elements))
        pairs = product(a.elements.items(), b.elements.items())
        kept = {(i * b.dim + k, j * b.dim + m): _settle(x * y, reading) for ((i, j), x), ((k, m), y) in pairs}
        return _nonzero(a.dim * b.dim, kept)

    return reduce(kron, factors)


def _levels(name: str, arguments: list[Any], reading: _Reading) -> _Operator:
    """Return ``destroy(n)``, ``number(n)``, ``identity(n)`` or ``proj(d, a[, b])``."""
    for argument in arguments:
        if isinstance(argument, _Operator) or not argument.is_Integer:
            found = "an operator" if isinstance(argument, _Operator) else _short(str(argument))
            raise reading.refuse(f"the arguments of {name} must be integers", found)
    n, *labels = (int(argument) for argument in arguments)
    if not 1 <= n <= MAX_DIM:
        raise reading.refuse(f"the number of levels in {name} must lie in 1 ... {MAX_DIM}", n)
    if any(not 0 <= label < n for label in labels):
        raise reading.refuse(f"the levels in {name} must lie in 0 ... {n - 1}", labels, "Levels count from 0")
    if name == "proj":
        return _Operator(n, {(labels[0], labels[-1]): sympy.S.One})
    if name == "destroy":
        return _Operator(n, {(k - 1, k): sympy.sqrt(k) for k in range(1, n)})
    return _nonzero(n, {(k, k): sympy.Integer(k if name == "number" else 1) for k in range(n)})


_FUNCTIONS: dict[str, tuple[Callable[[str, list[Any], _Reading], Any], int, int]] = {
    "sqrt": (_scalar_function(sympy.sqrt), 1, 1),
    "exp": (_exp, 1, 1),
    "log": (_scalar_function(sympy.log), 1, 1),
    "sin": (_scalar_function(sympy.sin), 1, 1),
    "cos": (_scalar_function(sympy.cos), 1, 1),
    "tan": (_scalar_function(sympy.tan), 1, 1),
    "sinh": (_hyperbolic(sympy.sinh), 1, 1),
    "cosh": (_hyperbolic(sympy.cosh), 1, 1),
    "tanh": (_hyperbolic(sympy.tanh), 1, 1),
    "atan": (_scalar_function(sympy.atan), 1, 1),
    "atan2": (_scalar_function(sympy.atan2), 2, 2),
    "abs": (_scalar_function(_inert(sympy.Abs), sympy.Abs), 1, 1),
    "sign": (_scalar_function(_inert(sympy.sign), sympy.sign), 1, 1),
    "erf": (_scalar_function(sympy.erf), 1, 1),
    "heaviside": (_scalar_function(_inert(sympy.Heaviside, sympy.Rational(1, 2)), sympy.Heaviside), 1, 1),
    "conj": (_scalar_function(_conj, sympy.conjugate), 1, 1),
    "dag": (_dag, 1, 1),
    "tensor": (_tensor, 1, MAX_DIM),
    "destroy": (_levels, 1, 1),
    "number": (_levels, 1, 1),
    "identity": (_levels, 1, 1),
    "proj": (_levels, 2, 3),
}


# ---------------------------------------------------------------------------------------------------------------------
# Sizes
# ---------------------------------------------------------------------------------------------------------------------


def _erf(z: complex) -> complex:
    from scipy.special import erf

    return complex(erf(z if z.imag else z.real))


_NUMERIC: dict[Any, Callable[..., complex]] = {
    sympy.Add: lambda *z: sum(z, 0j), sympy.Mul: lambda *z: math.prod(z, start=1 + 0j), sympy.Pow: lambda a, b: a**b,
    sympy.exp: cmath.exp, sympy.log: cmath.log, sympy.sin: cmath.sin, sympy.cos: cmath.cos, sympy.tan: cmath.tan,
    sympy.sinh: cmath.sinh, sympy.cosh: cmath.cosh, sympy.tanh: cmath.tanh, sympy.sqrt: cmath.sqrt, sympy.erf: _erf,
    sympy.Abs: abs, sympy.conjugate: lambda z: z.conjugate(), sympy.sign: lambda z: z / (abs(z) or 1),
    sympy.atan: cmath.atan, sympy.atan2: lambda y, x: cmath.phase(complex(x.real, y.real)),
    sympy.Heaviside: lambda x, *at_zero: 0.5 if x == 0 else float(x.real > 0),
}  # fmt: skip


def _settle(expr: Any, reading: _Reading) -> Any:
    """Return a new formula once it is known to be finite and small; long constants become double-precision numbers."""
    size, value = _weigh(expr, reading)
    if value is None or size <= MAX_EXACT:
        return expr
    return _number(value)


def _number(value: complex) -> Any:
    return sympy.Float(value.real) + (sympy.I * sympy.Float(value.imag) if value.imag else 0)


def _weigh(expr: Any, reading: _Reading) -> tuple[int, complex | None]:
    """Return the number of parts of a formula, and its value when it is a constant; refuse what is too large."""
    if expr in reading.weights:
        return reading.weights[expr]
    if expr.is_Atom:
        weight: tuple[int, complex | None] = (1, _atom(expr, reading))
    else:
        parts = [_weigh(argument, reading) for argument in expr.args]
        if expr.is_Pow:
            _check_exponent(expr.exp, reading)
        values = [value for _, value in parts if value is not None]
        known = len(values) == len(parts) and expr.func in _NUMERIC
        weight = (1 + sum(size for size, _ in parts), _finite(expr.func, values, reading) if known else None)
    if weight[0] > MAX_SIZE:
        raise reading.refuse(f"the formula must have at most {MAX_SIZE} parts when written out", "more")
    reading.weights[expr] = weight
    return weight


def _atom(expr: Any, reading: _Reading) -> complex | None:
    if expr in (sympy.nan, sympy.zoo, sympy.oo, -sympy.oo):
        raise reading.refuse("every part of a formula must be finite", expr, "Look for a division by zero or a pole")
    if expr.is_Rational:
        if max(abs(expr.p), expr.q) >= 10**MAX_DIGITS:
            raise reading.refuse(f"an integer must have at most {MAX_DIGITS} digits", "more", "Write it as 1e40")
        return complex(float(expr))
    if expr.is_Float and not abs(float(expr)) <= MAX_VALUE:
        raise reading.refuse(f"a number must be at most {MAX_VALUE:g} in magnitude", expr.n(3))
    return complex(expr) if expr.is_number and expr.is_finite else None


def _finite(function: Any, values: list[complex], reading: _Reading) -> complex:
    try:
        value = complex(_NUMERIC[function](*values))
    except (OverflowError, ValueError):
        value = complex("nan")
    if not abs(value) <= MAX_VALUE:
        name = getattr(function, "__name__", str(function))
        rule = f"every constant in a formula must be finite and at most {MAX_VALUE:g} in magnitude"
        found = f"{name} of {', '.join(f'{v.real:.3g}' + (f'{v.imag:+.3g}i' if v.imag else '') for v in values)}"
        raise reading.refuse(rule, _short(found))
    return value


def _predict(function: Any, arguments: list[Any], reading: _Reading) -> complex | None:
    """Return the value of a function of constants, refused if it overflows before SymPy tries to find it exactly."""
    values = [value for _, value in (_weigh(argument, reading) for argument in arguments) if value is not None]
    return _finite(function, values, reading) if len(values) == len(arguments) else None


def _check_exponent(exponent: Any, reading: _Reading) -> None:
    # numbers inside symbolic exponents count too: 2**(n - x) * 2**x becomes 2**n
    for number in exponent.atoms(sympy.Number):
        if abs(number) > MAX_POWER or (number.is_Rational and number.q > MAX_ROOT):
            rule = f"the numbers in an exponent must be at most {MAX_POWER} in magnitude, with denominators up to {MAX_ROOT}"
            raise reading.refuse(rule, _short(str(number)), "Use exp(...) for exponentials")


# ---------------------------------------------------------------------------------------------------------------------
# Names and numbers
# ---------------------------------------------------------------------------------------------------------------------


def _declared(names: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the declared names as scalars and operators; the names of constants and operators keep their meaning."""
    declared: dict[str, Any] = {}
    for name, value in names.items():
        if name in _CONSTANTS or name in _QUBIT:
            rule = "a declared name must not be that of a constant or operator"
            raise ConfigError(where, rule, f"'{name}'", f"Rename it, e.g. {name}_")
        if isinstance(value, sympy.MatrixBase):
            if value.rows != value.cols or value.rows > MAX_DIM:
                rule = f"an operator must be square with at most {MAX_DIM} rows"
                raise ConfigError(where, rule, f"shape {value.shape} for '{name}'")
            value = _nonzero(value.rows, dict(value.todok()))
        elif not isinstance(value, sympy.Expr):
            value = _literal(value, f"{where}, name '{name}'")
        declared[unicodedata.normalize("NFKC", name)] = value  # as Python's parser spells identifiers
    return declared


def _literal(value: Any, where: str) -> sympy.Expr:
    """Return a plain number as a SymPy number, exact for integers (also for whole imaginary parts)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Complex):
        raise ConfigError(where, "the value must be a number, a formula or a matrix", reprlib.repr(value), _ALLOWED)
    if isinstance(value, numbers.Integral):
        if abs(int(value)) >= 10**MAX_DIGITS:
            raise ConfigError(where, f"an integer must have at most {MAX_DIGITS} digits", "more", "Write it as 1e40")
        return sympy.Integer(int(value))
    try:
        number = complex(value)
    except (OverflowError, TypeError, ValueError):
        number = complex("nan")
    if not abs(number) <= MAX_VALUE:
        raise ConfigError(where, f"a number must be finite and at most {MAX_VALUE:g} in magnitude", reprlib.repr(value))
    if isinstance(value, numbers.Real):
        return sympy.Float(number.real)
    whole = number.imag.is_integer() and abs(number.imag) < 10**MAX_DIGITS
    imaginary = sympy.Integer(int(number.imag)) if whole else sympy.Float(number.imag)
    return sympy.I * imaginary + (sympy.Float(number.real) if number.real else 0)


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
