"""Remove values of records from texts of other systems, so that the rest can be written to logs and failures.

A text is cut first and masked then, to limit the work. Only a closed list remains: words of error messages, names of
fields, codes built from such words, and short numbers. Everything else becomes `…`, because a name without quotes looks
like any other word. Each pattern here takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

LONGEST_READ: Final = 2_000
"""Maximum of examined characters of a foreign text."""
LONGEST_KEPT: Final = 300
MASK: Final = "…"

_ERROR_WORDS: Final = """
a able accept accepted accepts access account accounts action actions active add added additional address addresses admin
administrator after again all allowed already also an and another any api app application archived are argument array as
assigned at attribute attributes auth authentication authorization authorized automation automations available bad banned be
because been before belong belongs between blocked body boolean both but by call calls can cannot case change changed character
characters check client code codes combination company conflict connection contact contacts contain contains content could
couldn country create created creating creation currency current cursor custom data database date day days deal deals decimal
deleted denied deprecated details did didn disabled do documentation does doesn domain don duplicate duplicated duplicates
duration during each edit either element elements email emails empty enabled end endpoint entity enum err error errors exceed
exceeded exceeds exist existing exists expected expired extra failed failure false field fields file filter find firehose first
float followed for forbidden format formatted found from full function get given greater group has hasn have header headers here
host http https id identifier ids if in inactive incorrect info information input insufficient integer internal invalid is isn
issue it item items its json key keys label labels last least length less let lets like limit limited limits link list locked
login long longer lookup lower made maintenance malformed many match maximum media merge merged message method middle minimum
minute minutes missing more most must name names needs negative new no non none not now null number numbers numeric object
objects occurred of off on once one only operation option optional options or order organization organizations other out owner
page pagination parameter parameters params parse part pass password path pattern payload pending per permission permissions
permitted person persons phone phones pipeline plan please policy positive possible private problem processed processing product
products property provide provided public query quota range rate reach reachable reached read reading reason received record
records reference refused rejected related release removed request requested requests require required requires requiring
reserved resource response retry role rule same schema scope scopes search second seconds secret segment segments sent server
service set setting settings ship short should shouldn size small smart some something sorry special stage start started state
status still string strings subscription such support supported sync system t taken temporarily term test text than that the
their them then there these they this those time timeout timestamp to today token tokens too traits true try type unable
unauthorized unavailable undefined unexpected unhandled unique unknown unprocessable unreachable unrecognized unsupported until
up update updated updating upper url use used user users using valid validate validation value values version view visible wait
was wasn webhook webhooks website were when where which while window with within without word words workflow workflows write
writing wrong www year yes you your zero
"""
ERROR_WORDS: Final = frozenset(_ERROR_WORDS.split())
"""Words of the error messages of web APIs, without those that are also first names: `will`, `mark`, `may`, `grant`, `bill`."""
_ABBREVIATIONS: Final = frozenset({"API", "HTTP", "HTTPS", "ID", "IDS", "JSON", "URL"})
_STARTS: Final = ".:;!?([\"'`“"
"""A listed word may be capitalized after one of these or at the beginning; elsewhere it is a name (`Ann Page`)."""

_TOKEN: Final = re.compile("[\\w@+.'\u2019&#%-]+")
_ADDRESS: Final = re.compile(r"[^\s<>\"',;:]+")
_QUOTED: Final = re.compile(r"""(?<!\w)(["'`“])([^"'`“”]{0,2000})(?:["'`”](?!\w)|\Z)""")
_NUMBER: Final = re.compile(r"(?<![0-9a-zA-Z])\+?\d[\d ()/.-]{4,40}\d(?![0-9a-zA-Z])")
_SHORT_NUMBER: Final = re.compile(r"\d{1,5}")
_HASH: Final = re.compile(r"[0-9a-f]{40}")
_PART: Final = re.compile(r"[._-]")
_MASKS: Final = re.compile(r"…(?: ?…){1,2000}")


def mask_emails(text: str) -> str:
    """Replace each text between two separators that contains an `@`."""
    return _ADDRESS.sub(lambda found: MASK if "@" in found[0] else found[0], text)


def mask_text(text: str, *, known: Collection[str] = (), hidden: Iterable[str] = ()) -> str:
    """Return at most LONGEST_KEPT characters of a foreign text, without anything that could be a value of a record.

    known   names that may be repeated: those of the sent fields
    hidden  texts that are always masked: credentials, and the sent values
    """
    cut = text[:LONGEST_READ]
    for secret in sorted({word for word in hidden if len(word) > 2}, key=len, reverse=True):
        cut = cut.replace(secret, MASK)
    names = frozenset(known)
    cut = _QUOTED.sub(lambda found: _mask_quoted(found, names), cut)
    cut = _TOKEN.sub(lambda found: _mask_token(found, names), _NUMBER.sub(MASK, mask_emails(cut)))
    cut = _MASKS.sub(MASK, " ".join(cut.split()))
    return cut if len(cut) <= LONGEST_KEPT else cut[: LONGEST_KEPT - 1] + MASK


def _mask_quoted(found: re.Match[str], known: Collection[str]) -> str:
    """Mask a quoted text, unless it is the name of a field."""
    quote, word = found.groups()
    end = found[0][len(quote) + len(word) :]
    return f"{quote}{word if _is_field(word, known) else MASK}{end}"


def _mask_token(found: re.Match[str], known: Collection[str]) -> str:
    token = found[0]
    word = token.strip(".'\u2019-")
    if not word or word in known or word in _ABBREVIATIONS or _SHORT_NUMBER.fullmatch(word):
        return token
    parts = [part for part in re.split("[._'\u2019-]", word) if part]
    before = found.string[: found.start()].rstrip()[-1:]
    is_cased = word.islower() or "_" in word or (word.istitle() and (not before or before in _STARTS))
    return token if is_cased and all(_is_plain(part) for part in parts) else MASK


def _is_field(word: str, known: Collection[str]) -> bool:
    """Return whether a word is a field's name: a sent one, a custom field's code, or a key composed of plain words."""
    if word in known or word in RECORD_KEYS or _HASH.fullmatch(word):
        return True
    parts = _PART.split(word)
    return len(parts) > 1 and word == word.lower() and all(_is_plain(part) for part in parts)


def _is_plain(part: str) -> bool:
    """Return whether a part is a word of error messages, a short number, or the code of a custom field."""
    is_cased = part.islower() or part.isupper() or part.istitle()
    return (
        (is_cased and part.lower() in ERROR_WORDS)
        or _SHORT_NUMBER.fullmatch(part) is not None
        or _HASH.fullmatch(part) is not None
    )


RECORD_KEYS: Final = frozenset(
    {"id", "ids", "name", "email", "emails", "phone", "phones", "address", "term", "cursor", "website"}
)
"""Keys of records and parameters that consist of one word."""
