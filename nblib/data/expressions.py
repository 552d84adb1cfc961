"""Questions to the columns of a table, worded as for pandas' `eval`: `contrast_left > contrast_right`.

Comparisons, arithmetic, `and`, `or`, `not`, `in` and four methods of a column are let through, and
nothing else: no recipe can run code or fill the memory. Rows are asked one by one, so whole numbers
stay exact.
"""

from __future__ import annotations

import ast
import keyword
import re
import unicodedata
from collections.abc import Callable

from nblib.core.errors import BadParameter

ALLOWED = "only columns, numbers, text, comparisons, + - * / // %, and, or, not, in, and a column's isin, isna, notna and fillna are"
READ = (
    ast.Expression, ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple, ast.Compare, ast.BoolOp, ast.BinOp,
    ast.UnaryOp, ast.boolop, ast.cmpop, ast.operator, ast.unaryop,
)  # fmt: skip
REFUSED = (ast.Is, ast.IsNot, ast.Pow, ast.MatMult, ast.LShift, ast.RShift, ast.BitXor, ast.Invert)
BOTH = (ast.BitAnd, ast.BitOr)
LONGEST = 20_000  # letters of an expression: a list of some thousand trials
TOO_DEEP = "its parts stand too deeply in one another to be read; write it with fewer"

Column = list  # a value a row, None where it is missing


class Text(str):
    """Text that refuses to be compared with a number, instead of being unequal to every one, and to be
    repeated or filled in."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, str):
            raise TypeError(
                f"text {str(self)!r} is compared with {other!r}; text stands in quotes, a number does not"
            )
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __add__(self, other: str) -> Text:
        return Text(str.__add__(self, other))

    def _not_calculated_with(self, other: object) -> Text:
        raise TypeError(
            f"text {str(self)[:40]!r} is calculated with; it can be compared and joined"
        )

    __mul__ = __rmul__ = __mod__ = _not_calculated_with


class _Question(ast.NodeTransformer):
    """Takes an expression apart and lets pass what is allowed; text and methods become names."""

    def __init__(self, read: Callable[[str], Column], names: list[str], ticked: dict[str, str]):
        self.read, self.names, self.ticked = read, names, ticked
        self.columns: dict[str, Column] = {}
        self.texts: dict[str, Text] = {}

    def generic_visit(self, node: ast.AST) -> ast.AST:
        match node:
            case ast.UnaryOp(ast.Invert()) if self.is_logic(node.operand):  # pandas' `not`
                node.op = ast.Not()
        if not isinstance(node, READ) or isinstance(node, REFUSED):
            raise ValueError(f"{type(node).__name__} is not allowed; {ALLOWED}")
        both = isinstance(node, ast.BinOp) and isinstance(node.op, BOTH)
        if both and not (self.is_logic(node.left) and self.is_logic(node.right)):
            raise ValueError("each comparison beside & or | stands in parentheses")
        if isinstance(node, ast.Compare):
            several = [isinstance(part, ast.List | ast.Tuple) for part in node.comparators]
            if several != [isinstance(sign, ast.In | ast.NotIn) for sign in node.ops]:
                raise ValueError("`in` wants a list, [1, 2], and nothing else does")
        elif any(isinstance(part, ast.List | ast.Tuple) for part in ast.iter_child_nodes(node)):
            raise ValueError("a list stands after `in` alone")
        return super().generic_visit(node)

    def is_logic(self, part: ast.AST) -> bool:
        """Whether a part can only be true or false."""
        if isinstance(part, ast.Name):
            name = self.ticked.get(part.id, part.id)
            known = [v for v in self.read(name) if v is not None] if name in self.names else [""]
            return all(isinstance(v, bool) for v in known)
        if isinstance(part, ast.BinOp | ast.UnaryOp):
            return isinstance(part.op, (*BOTH, ast.Not, ast.Invert))
        return isinstance(part, ast.Compare | ast.BoolOp | ast.Call)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str):
            if any(tick in node.value for tick in self.ticked):
                raise ValueError("a backtick cannot stand inside text")
            self.texts[f"text_{len(self.texts)}_"] = Text(node.value)
            return ast.Name([*self.texts][-1], ast.Load())
        if not isinstance(node.value, (bool, int, float)):
            raise ValueError(f"{node.value!r} is not allowed; {ALLOWED}")
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        self.columns[node.id] = self.column(node.id)
        return node

    def column(self, key: str) -> Column:
        # Python reads a name in its plain form: the micro sign as the Greek letter.
        plain = {unicodedata.normalize("NFKC", n): n for n in self.names}
        name = self.ticked.get(key) or plain.get(key, key)
        if name not in self.names:
            raise ValueError(f"no column {name!r}")
        return [Text(v) if isinstance(v, str) else v for v in self.read(name)]

    def visit_Call(self, node: ast.Call) -> ast.AST:
        match node:
            case ast.Call(func=ast.Attribute(ast.Name() as asked, "isin"), args=[_], keywords=[]):
                return self.visit(ast.Compare(asked, [ast.In()], node.args))
            case ast.Call(
                func=ast.Attribute(ast.Name(key), "isna" | "notna"), args=[], keywords=[]
            ):
                wanted = node.func.attr == "isna"
                values = [(v is None) == wanted for v in self.column(key)]
            case ast.Call(func=ast.Attribute(ast.Name(key), "fillna"), args=[_], keywords=[]):
                other = ast.literal_eval(node.args[0])
                other = Text(other) if isinstance(other, str) else other
                values = [other if v is None else v for v in self.column(key)]
            case _:
                raise ValueError(f"{ast.unparse(node)} is not allowed; {ALLOWED}")
        name = f"method_{len(self.columns)}_"
        self.columns[name] = values
        return ast.Name(name, ast.Load())


def quoted(name: str) -> str:
    """A column's name as it stands in an expression."""
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"`{name}`"


def _parsed(text: str) -> tuple[ast.Expression, list[str]]:
    """The syntax tree of an expression, and the names that stood in backticks: in it, `ticked_1_` …"""
    if len(text) > LONGEST:
        raise ValueError(f"it has {len(text):,} letters; at most {LONGEST:,} are read")
    ticked: list[str] = []
    plain = re.sub("`([^`]*)`", lambda m: f"ticked_{ticked.append(m[1]) or len(ticked)}_", text)
    return ast.parse(plain.strip(), mode="eval"), ticked


def check_syntax(text: str, setting: str) -> None:
    """BadParameter where a text cannot be read as an expression, whatever columns there are."""
    try:
        _parsed(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        deep = isinstance(error, RecursionError | MemoryError)
        why = TOO_DEEP if deep else getattr(error, "msg", str(error))
        raise BadParameter(
            f"{setting} = {text[:200]!r}: not readable as an expression ({why}); a name with blanks, or one "
            "such as `class`, stands in backticks."
        ) from None


def evaluate(text: str, names: list[str], read: Callable[[str], Column], setting: str) -> Column:
    """The value of an expression in each row, None where an operand is missing.

    names: columns that may be used; read(column): its values. Raises BadParameter, beginning with `setting`, for an unknown column, for
    text compared with numbers, and for anything else than a plain question.
    """
    try:
        tree, ticked = _parsed(text)
        question = _Question(read, names, {f"ticked_{i}_": n for i, n in enumerate(ticked, 1)})
        tree = question.visit(tree)
        if not question.columns:
            raise ValueError("it names no column")
        code = compile(ast.fix_missing_locations(tree), setting, "eval")
        answers = []
        for row in zip(*question.columns.values(), strict=True):
            if any(value is None for value in row):
                answers.append(None)
                continue
            known = question.texts | dict(zip(question.columns, row, strict=True))
            # What `visit` lets pass: no call, no attribute and no name that is not known here.
            answer = eval(code, {"__builtins__": {}}, known)
            answers.append(str(answer) if isinstance(answer, str) else answer)
    except SyntaxError as error:
        why = f"no such column, and not readable as an expression ({error.msg}); a name with blanks, or one such as `class`, stands in backticks"
    except (RecursionError, MemoryError):
        why = TOO_DEEP
    except (ValueError, TypeError, ArithmeticError) as error:
        why = str(error)[:300]
    else:
        return answers
    raise BadParameter(f"{setting} = {text[:200]!r}: {why}. The columns are {', '.join(names)}.")
