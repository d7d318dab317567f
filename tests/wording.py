"""Check the words of everything that people read: docstrings, the interface and the documents.

    python -m tests.wording                     count the findings by kind
    python -m tests.wording --list [docstring]  print each finding with its place
    python -m tests.wording --root FOLDER       check another checkout

Three checks. `AVOIDED` lists turns that readers stumble over, each with the words to use. A sentence has at most `LONGEST` words. A
sentence of the interface or of a document has a verb; a short label needs none.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[1]
CODE = ("pipeline", "db", "sandbox", "tests", "benchmarks")
LONGEST = 45
"""Words of one sentence."""
LABEL = 8
"""Words of a label: "Only entries older than this id." needs no verb."""

AVOIDED = {
    r"who(?:m|so)?ever|whatsoever": "anyone who, the user who",
    r"whose": "with, that has; for a thing: its",
    r"(?:of|by|in|to) which": "that, where",
    r"in whose": "where",
    r"anew|made again|makes? again": "again, recreate",
    r"in vain": "without success, failed",
    r"at once": "immediately, at the same time",
    r"meanwhile": "while …, since then",
    r"(?:is|are) none": "no …, does not exist",
    r"(?:is|are) let": "may",
    r"comes? to be": "becomes, is created",
    r"came to (?:its|an) end": "ended",
    r"(?:has|have) said yes|says? yes|needs? a yes": "approved, needs approval",
    r"(?:gives?|gave|given|giving) up": "fail, stop",
    r"mend(?:s|ed|ing)?": "fix",
    r"sound (?:again|ones?|and)|(?:is|are|was) sound": "healthy",
    r"tak(?:es?|en|ing) away|took away": "delete, remove",
    r"in step": "up to date",
    r"nobody|somebody": "no user, a user, someone",
    r"told|tells?|telling": "sent, shown, reported",
    r"heard|hears?|hearing": "received",
    r"said|says?": "sent, reported, is set to, states",
    r"stands?|stood|standing": "is, is stored",
    r"goes|going (?:to|out|in)": "is sent, is moved",
    r"went (?!wrong)\w+": "was sent, was moved",
    r"depart(?:s|ed|ure|ures)?": "deletion, deleted",
    r"farewells?": "deletion notice",
    r"bequeath\w*|heirs?|heirlooms?|forebears?|inherits?": "transfer, survivor, merge source",
    r"twins?": "duplicates",
    r"afoot|under way": "in flight, running",
    r"quarrels?": "update loop",
    r"breaker": "approval",
    r"errands?": "job",
    r"overtaken": "stale",
    r"hence|thus|thereby|thereof|thereto|wherein|whereby|hereby|therein": "so, by this",
    r"lest|ought|shall|upon|nay|albeit": "plain words",
    r"fold(?:s|ed|ing)": "coalesce",
    r"vouched|let in|lets? go|knocks?": "authenticated, log in, release",
    r"(?:is|are) to be": "must be, is",
    r"as if it were|were it|be it": "plain words",
}
"""Pattern → what to write. Matched as whole words, in any case."""
_AVOIDED_IN_NAMES = re.compile(
    r"told|tells?|said|says?|heard|hears?|hearing|whose|whoever|nobody|somebody|depart(?:s|ed|ures?)?|farewells?|quarrels?|twins?|errands?"
    r"|fold(?:s|ed|ing)?|verdicts?|foresee|foreseen|foreseeing|afoot|anew|healed|overtaken|patiently|vouched|doors?|mend(?:s|ed)?|goes|went"
    r"|stands?|standing|settle[ds]?|mirror(?:s|ed)?|heirs|forebears|bequeath|meanwhile|vain|knocks?|deeds?",
    re.IGNORECASE,
)
"""Parts of names of functions, classes, parameters and variables."""
_AVOIDED = re.compile(rf"\b(?:{'|'.join(AVOIDED)})\b", re.IGNORECASE)

_WORD = re.compile(r"[A-Za-z][A-Za-z'\u2019-]*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"“])")
_CODE_SPAN = re.compile(r"`[^`]*`|“[^”]*”")
_FENCE = re.compile(r"^```.*?^```|<!--.*?-->", re.MULTILINE | re.DOTALL)
_SQL = re.compile(r"\b(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE|ALTER|WITH|WHERE|FROM|ON CONFLICT|ORDER BY)\b")
_TAG = re.compile(r"<(?:script|style).*?</(?:script|style)>|<[^>]*>", re.DOTALL)
_JINJA = re.compile(r"\{#.*?#\}|\{%.*?%\}", re.DOTALL)
_VALUE = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_GENERATED = {"docs/modules.md"}

_REGULAR, _IRREGULAR = (
    re.sub(r"#.*", "", part).split() for part in (PROJECT / "tests" / "data" / "verbs.txt").read_text().split("\n\n")
)


def _forms(verb: str) -> Iterator[str]:
    yield verb
    stem = verb[:-1] if verb.endswith("e") else verb
    yield from (f"{verb}s", f"{verb}es", f"{stem}ed", f"{stem}ing", f"{stem}{stem[-1]}ed", f"{stem}{stem[-1]}ing")
    if verb.endswith("y"):
        yield from (f"{verb[:-1]}ies", f"{verb[:-1]}ied")


VERBS = frozenset(form for verb in _REGULAR for form in _forms(verb)) | frozenset(_IRREGULAR)


@dataclass(frozen=True, slots=True)
class Text:
    """One piece of text that people read."""

    kind: str
    """docstring, interface, document or name"""
    place: str
    words: str


@dataclass(frozen=True, slots=True)
class Finding:
    text: Text
    check: str
    """avoided, long or verbless"""
    detail: str


def texts(root: Path = PROJECT) -> Iterator[Text]:
    """Return all text of a checkout that people read."""
    for folder in CODE:
        for path in sorted((root / folder).rglob("*.py")):
            yield from _of_module(path, str(path.relative_to(root)), is_interface=folder == "pipeline")
    for path in sorted((root / "pipeline").rglob("*.html")):
        yield from _of_template(path, str(path.relative_to(root)))
    for path in [*sorted((root / "docs").rglob("*.md")), *sorted(root.glob("*.md"))]:
        if str(path.relative_to(root)) not in _GENERATED:
            yield from _of_document(path, str(path.relative_to(root)))


def _of_module(path: Path, name: str, *, is_interface: bool) -> Iterator[Text]:
    """Return docstrings, strings below assignments (they describe a constant) and, for `pipeline`, all other prose."""
    tree = ast.parse(path.read_text())
    described = {
        id(node.value): node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }
    for constant in described.values():
        yield Text("docstring", f"{name}:{constant.lineno}", str(constant.value))
    for identifier, number in _names(tree).items():
        yield Text("name", f"{name}:{number}", identifier)
    if is_interface:
        in_f_strings = {
            id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                words = "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in described:
                if id(node) in in_f_strings:
                    continue
                words = node.value
            else:
                continue
            if _is_prose(words):
                yield Text("interface", f"{name}:{node.lineno}", words)


def _names(tree: ast.Module) -> dict[str, int]:
    """Return the names that a module defines → line of the first one."""
    found: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.setdefault(node.name, node.lineno)
        elif isinstance(node, ast.arg):
            found.setdefault(node.arg, node.lineno)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.setdefault(node.id, node.lineno)
    return found


def _is_prose(words: str) -> bool:
    if not re.search(r"[.,:;!?]", words) and len(words) > 1_000:
        return False  # a list of words
    return (
        len(_WORD.findall(words)) > 2
        and " " in words.strip()
        and not _SQL.search(words)
        and "</" not in words
        and "://" not in words
    )


def _of_template(path: Path, name: str) -> Iterator[Text]:
    source = _JINJA.sub(lambda found: "\n" * found.group().count("\n"), path.read_text())
    for block in _VALUE.finditer(source):
        for found in re.finditer(r"(['\"])(.*?)\1", block.group()):
            if _is_prose(found.group(2)):
                yield Text("interface", f"{name}:{source[: block.start()].count(chr(10)) + 1}", found.group(2))
    plain = _VALUE.sub("X", source)
    for number, line in enumerate(_TAG.sub("\t", plain).split("\n"), 1):
        for words in re.split(r"\t{2,}", line):
            if _is_prose(words):
                yield Text("interface", f"{name}:{number}", words.replace("\t", " "))


def _of_document(path: Path, name: str) -> Iterator[Text]:
    source = _FENCE.sub(lambda found: "\n" * found.group().count("\n"), path.read_text())
    paragraph: list[str] = []
    began = 1
    for number, line in enumerate([*source.split("\n"), ""], 1):
        is_row, is_new = line.startswith("|"), not line.strip() or bool(re.match(r"\s*(?:[-*#>]|\d+\.)\s?", line))
        if is_row or is_new:
            if paragraph:
                yield Text("document", f"{name}:{began}", " ".join(paragraph))
            paragraph, began = [], number
        if is_row:
            yield from (Text("document", f"{name}:{number}", cell) for cell in line.strip("| ").split("|"))
        elif line.strip():
            paragraph.append(re.sub(r"^\s*(?:[-*>]|#+|\d+\.)\s+", "", line))
    if paragraph:
        yield Text("document", f"{name}:{began}", " ".join(paragraph))


def findings(text: Text) -> Iterator[Finding]:
    """Return what each check finds in one text."""
    if text.kind == "name":
        for part in re.findall(r"[A-Z]?[a-z]+", text.words):
            if _AVOIDED_IN_NAMES.fullmatch(part):
                yield Finding(text, "avoided", text.words)
        return
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", _CODE_SPAN.sub("X", text.words))
    for found in _AVOIDED.finditer(plain):
        yield Finding(text, "avoided", found.group().lower())
    for paragraph in re.split(r"\n\s*\n|\n {4,}|\n\s*(?=[-*] |\S+ {2,}\S)", plain):
        for sentence in _SENTENCE.split(" ".join(paragraph.split())):
            words = _WORD.findall(sentence)
            if len(words) > LONGEST:
                yield Finding(text, "long", f"{len(words)} words: {' '.join(words[:8])} …")
            ends = sentence.rstrip("\"”)'*_ ").endswith((".", "!"))
            if (
                text.kind != "docstring"
                and ends
                and len(words) > LABEL
                and not any(word.lower() in VERBS for word in words)
            ):
                yield Finding(text, "verbless", sentence[:100])


def duplicate_names(root: Path = PROJECT) -> dict[str, list[str]]:
    """Return public classes of `pipeline` and `db` that share a name → their modules."""
    places: dict[str, list[str]] = {}
    for folder in ("pipeline", "db"):
        for path in sorted((root / folder).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places.setdefault(node.name, []).append(str(path.relative_to(root)))
    return {name: found for name, found in places.items() if len(found) > 1}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=PROJECT)
    parser.add_argument(
        "--list", nargs="?", const="", metavar="KIND", help="docstring, interface, document or name; all without one"
    )
    chosen = parser.parse_args()
    totals: Counter[str] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    turns: Counter[str] = Counter()
    for text in texts(chosen.root):
        totals[text.kind] += 1
        found = list(findings(text))
        counts.update({(text.kind, each.check) for each in found})
        turns.update(each.detail for each in found if each.check == "avoided" and text.kind != "name")
        if chosen.list is not None and chosen.list in ("", text.kind):
            for each in found:
                print(f"{text.place}: {each.check}: {each.detail}")
    if chosen.list is None:
        print(f"{'texts':12}{'number':>8}{'avoided':>16}{'long':>14}{'verbless':>14}")
        for kind, number in totals.items():
            shares = [
                f"{counts[kind, check]} ({counts[kind, check] / number:.1%})"
                for check in ("avoided", "long", "verbless")
            ]
            print(f"{kind:12}{number:8}{shares[0]:>16}{shares[1]:>14}{shares[2]:>14}")
        print("most frequent:", ", ".join(f"{turn} {count}" for turn, count in turns.most_common(25)))
        names = duplicate_names(chosen.root)
        print(
            f"public classes that share a name: {len(names)}",
            *(f"\n  {name}: {', '.join(found)}" for name, found in names.items()),
        )
    return int(bool(counts) or bool(duplicate_names(chosen.root)))


if __name__ == "__main__":
    raise SystemExit(main())
