"""Finds every regular expression of ours in the sources, and runs them over hostile texts within a bound of CPU time.

Run as a program it reads `{"pattern", "flags", "is_bytes", "uses"}` as lines of JSON and answers each with the slowest text, so
that the bound can be the process's own: a pattern that never comes to its end is interrupted and named.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import re._constants as constants  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

PROJECT = Path(__file__).parents[2]
FUNCTIONS = frozenset({"compile", "search", "match", "fullmatch", "split", "findall", "finditer", "sub", "subn"})
SMALL, LARGE = 100_000, 1_000_000
"""Characters of a text: a pattern that takes the square of its length needs a hundred times longer for the larger one."""
MOST_S = 2.0
"""CPU seconds for one text; a linear pattern needs a hundredth to a tenth of a second for the larger one."""
SLOWEST = 8
"""Texts of each pattern and use that are tried at ten times the length: those that took longest."""
COMPARED_S = 0.2
MOST_TIMES = 30.0
"""How many times longer the tenfold text may take, where it takes more than COMPARED_S: ten, and what measuring adds."""
REPEATS = (constants.MAX_REPEAT, constants.MIN_REPEAT, constants.POSSESSIVE_REPEAT)
EVERY = "aA0 _-.@:/\\\"'`<>()[]{}%&=,;\n\t…é“"


@dataclass(frozen=True)
class Found:
    """A pattern and how it is applied: `anchored` for match and fullmatch, `anywhere` for all that search."""

    where: str
    pattern: str
    flags: int
    uses: tuple[str, ...]
    is_bytes: bool = False


def modules() -> Iterator[tuple[Path, ModuleType]]:
    """Every module of pipeline, db and sandbox; migrations too."""
    paths = [path for package in ("pipeline", "db", "sandbox") for path in sorted((PROJECT / package).rglob("*.py"))]
    for path in [*paths, PROJECT / "celeryconfig.py"]:
        name = ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
        if name.endswith("__main__") or name in {"db.migrations.env", "pipeline.celery"}:
            continue  # these begin to work when they are imported; what they hold is found in the sources
        yield path, importlib.import_module(name)


def compiled() -> dict[str, Found]:
    """Return the patterns defined in a module, alone or within a tuple, a mapping or a class, by place and text."""
    found: dict[str, Found] = {}
    for path, module in modules():
        source = path.read_text("utf-8")
        for name, value in list(vars(module).items()):
            for pattern in _patterns_in(value, module.__name__):
                where = f"{path.relative_to(PROJECT)}:{name}"
                text = pattern.pattern.decode("latin-1") if isinstance(pattern.pattern, bytes) else pattern.pattern
                is_bytes = isinstance(pattern.pattern, bytes)
                uses = _uses(source, name)
                found[f"{where} {text}"] = Found(where, text, pattern.flags, uses, is_bytes)
    return found


def _patterns_in(value: Any, module: str, levels: int = 3) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif not levels:
        return
    elif isinstance(value, dict):
        for each in list(value.values()):
            yield from _patterns_in(each, module, levels - 1)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for each in list(value):
            yield from _patterns_in(each, module, levels - 1)
    elif isinstance(value, type) and value.__module__ == module:
        for each in list(vars(value).values()):
            yield from _patterns_in(each, module, levels - 1)


def _uses(source: str, name: str) -> tuple[str, ...]:
    """How the module applies a pattern; where that cannot be read off, or others import it, in every way."""
    methods = set(re.findall(rf"\b{re.escape(name)}\.(\w+)", source)) & FUNCTIONS
    names_it = len(re.findall(rf"\b{re.escape(name)}\b", source)) - 1
    if not name.startswith("_") or not methods or names_it > len(re.findall(rf"\b{re.escape(name)}\.\w+", source)):
        return ("anchored",) if methods and methods <= {"match", "fullmatch"} else ("anchored", "anywhere")
    return _kinds(methods)


def _kinds(methods: set[str]) -> tuple[str, ...]:
    kinds = {"anchored" if method in {"match", "fullmatch"} else "anywhere" for method in methods}
    return tuple(sorted(kinds))


def written() -> tuple[dict[str, Found], list[str]]:
    """Return the patterns written into a call of `re`, and the calls that build their pattern at run time."""
    found: dict[str, Found] = {}
    composed: list[str] = []
    for package in ("pipeline", "db", "sandbox"):
        for path in sorted((PROJECT / package).rglob("*.py")):
            place = str(path.relative_to(PROJECT))
            tree = ast.parse(path.read_text("utf-8"))
            at_top = {id(node) for statement in tree.body for node in _outside_of_functions(statement)}
            for node in ast.walk(tree):
                if not _is_call_of_re(node) or id(node) in at_top:
                    continue
                given = node.args[0]  # type: ignore[attr-defined]
                function = node.func.attr  # type: ignore[attr-defined]
                if isinstance(given, ast.Constant):
                    text = given.value.decode("latin-1") if isinstance(given.value, bytes) else given.value
                    uses = ("anchored", "anywhere") if function == "compile" else _kinds({function})
                    found[f"{place} {text}"] = Found(place, text, 0, uses, isinstance(given.value, bytes))
                else:
                    composed.append(f"{place}: {ast.unparse(given)}")
    return found, composed


def _outside_of_functions(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when the module is imported: its patterns are found as values."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _outside_of_functions(child)


def _is_call_of_re(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "re"
        and node.func.attr in FUNCTIONS
        and bool(node.args)
    )


def hostile_texts(pattern: str | bytes, flags: int) -> list[tuple[str, str, str]]:
    """(beginning, middle, end) of texts; the middle is repeated up to the wanted length.

    Single characters, and what almost matches: for each part that may repeat, the text before it, then the part many times,
    then a character that breaks the match; and the whole sample many times.
    """
    tree = parser.parse(pattern, flags & ~re.UNICODE if flags & re.ASCII else flags)
    texts = [("", character, "") for character in EVERY]
    texts += [("", character, "\x01") for character in "a0 "]
    sample = _sample(tree)
    if sample:
        texts += [
            ("", sample, "\x01"),
            ("", sample[:-1] or sample, "\x01"),
            ("", sample + "a", ""),
            ("", sample + " ", ""),
        ]
    for before, part in _repeated(tree, ""):
        if part:
            texts += [(before, part, end) for end in ("\x01", "a", " ", '"', "<", "@")]
            texts += [("", before + part, "\x01"), ("", before + part * 3, "!")]
    return list(dict.fromkeys(texts))


def _sample(tree: Any) -> str:
    """A short text that the pattern matches, look-around left out."""
    return "".join(_sample_of(code, value) for code, value in tree)


def _sample_of(code: Any, value: Any) -> str:
    ways: dict[Any, Callable[[Any], str]] = {
        constants.LITERAL: chr,
        constants.NOT_LITERAL: lambda given: "b" if given == ord("a") else "a",
        constants.ANY: lambda _: "a",
        constants.IN: _member,
        constants.BRANCH: lambda given: _sample(given[1][0]),
        constants.SUBPATTERN: lambda given: _sample(given[-1]),
        constants.ATOMIC_GROUP: _sample,
        **dict.fromkeys(REPEATS, lambda given: _sample(given[2]) * max(1, min(given[0], 50))),
    }
    return ways[code](value) if code in ways else ""


def _member(value: list[Any]) -> str:
    """One character of a set."""
    return (_members(value) or "a")[-1]


def _members(value: list[Any]) -> str:
    """Return one character of each kind in a set."""
    if value[0][0] is constants.NEGATE:
        return "".join(each for each in "a0 .-" if not re.fullmatch(_class(value[1:]), each))
    kinds = {constants.CATEGORY_DIGIT: "0", constants.CATEGORY_SPACE: " ", constants.CATEGORY_WORD: "a0"}
    found = ""
    for code, given in value:
        if code is constants.LITERAL:
            found += chr(given)
        elif code is constants.RANGE:
            found += chr(given[0])
        else:
            found += kinds.get(given, "a")
    return found[:8]


def _class(members: list[Any]) -> str:
    names = {
        constants.CATEGORY_DIGIT: r"\d",
        constants.CATEGORY_SPACE: r"\s",
        constants.CATEGORY_WORD: r"\w",
        constants.CATEGORY_NOT_DIGIT: r"\D",
        constants.CATEGORY_NOT_SPACE: r"\S",
        constants.CATEGORY_NOT_WORD: r"\W",
    }
    written = []
    for code, value in members:
        if code is constants.LITERAL:
            written.append(re.escape(chr(value)))
        elif code is constants.RANGE:
            written.append(f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}")
        else:
            written.append(names.get(value, ""))
    return f"[{''.join(written)}]"


def _repeated(tree: Any, before: str) -> Iterator[tuple[str, str]]:
    """Return (text before it, part) of each part that may repeat, nested parts too."""
    for code, value in tree:
        if code in REPEATS:
            if value[1] > 1:
                yield from ((before, part) for part in _parts(value[2]))
            yield from _repeated(value[2], before)
        elif code is constants.SUBPATTERN:
            yield from _repeated(value[-1], before)
        elif code is constants.ATOMIC_GROUP:
            yield from _repeated(value, before)
        elif code is constants.BRANCH:
            for branch in value[1]:
                yield from _repeated(branch, before)
        elif code in (constants.ASSERT, constants.ASSERT_NOT):
            yield from _repeated(value[1], before)
        before += _sample_of(code, value)


def _parts(tree: Any) -> list[str]:
    """What may be repeated: of a set its characters, all of them in a row, and the first one beside each other."""
    if len(tree) == 1 and tree[0][0] is constants.IN:
        members = _members(tree[0][1])
        return [*members, members, *(members[:1] + each for each in members[1:])]
    return [_sample(tree)]


class TooSlow(Exception):
    """A pattern used up its CPU time."""


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise TooSlow


def cpu_s(use: Callable[[Any], object], text: str | bytes) -> float:
    """CPU seconds that one use takes. Raises: TooSlow."""
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_S)
    started = time.process_time()
    try:
        use(text)
    except TooSlow:
        raise TooSlow(f"{text[:40]!r}…{text[-10:]!r}") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return time.process_time() - started


def worst(found: Found) -> str:
    """What is wrong with a pattern, and with which text; empty if nothing is."""
    raw: Any = found.pattern.encode("latin-1") if found.is_bytes else found.pattern
    pattern = re.compile(raw, found.flags)
    ways: dict[str, Callable[[Any], object]] = {
        "anchored": lambda text: (pattern.fullmatch(text), pattern.match(text)),
        "anywhere": lambda text: pattern.sub(b"" if found.is_bytes else "", text),
    }
    for name in found.uses:
        texts = hostile_texts(raw, found.flags)
        try:
            timed = [(cpu_s(ways[name], _text(*text, SMALL, found)), text) for text in texts]
            for small_s, text in sorted(timed, reverse=True)[:SLOWEST]:
                large_s = cpu_s(ways[name], _text(*text, LARGE, found))
                if large_s > COMPARED_S and large_s > MOST_TIMES * small_s:
                    return f"{name}: {_shown(text)}: {small_s:.3f} s, then {large_s:.3f} s"
        except TooSlow as slow:
            return f"{name}: {slow}: more than {MOST_S} CPU seconds"
    return ""


def _shown(text: tuple[str, str, str]) -> str:
    begin, middle, end = text
    return f"{begin[:20]!r} + {middle[:20]!r} again and again + {end!r}"


def _text(begin: str, middle: str, end: str, size: int, found: Found) -> str | bytes:
    text = begin + middle * (size // len(middle)) + end
    return text.encode("utf-8", "replace") if found.is_bytes else text


def main() -> None:
    signal.signal(signal.SIGVTALRM, _interrupt)
    for line in sys.stdin:
        given = json.loads(line)
        print(json.dumps({"where": given["where"], "wrong": worst(Found(**given))}), flush=True)  # noqa: T201


def as_line(found: Found) -> str:
    return json.dumps(asdict(found))


if __name__ == "__main__":
    main()
