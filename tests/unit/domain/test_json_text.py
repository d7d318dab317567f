"""What stages leave for each other survives being written down, whatever text it carries."""

from __future__ import annotations

import pytest

from pipeline.domain.json_text import read_lenient, write_lenient
from pipeline.domain.records import Act, Candidate, Decision, FieldProblem, MatchStatus, Memory, OutgoingWrite


@pytest.mark.parametrize("name", ["Ada", "Ada\ud800", "愛", "\x00"], ids=["plain", "surrogate", "kanji", "nul"])
def test_a_decision_comes_back_as_it_was(name: str) -> None:
    candidate = Candidate(
        hull_id="a" * 24,
        message={"user": {"id": "a" * 24, "name": name}},
        match_status=MatchStatus.KNOWN,
        pipedrive_id=7,
        others=(8, 9),
        snapshot={"id": 7, "name": "Bea"},
        memory=Memory(agreed={"name": ("h", "p")}, present=("name",), recent=(("name", "h", 5),)),
    )
    write = OutgoingWrite(
        fields={"name": name},
        before={"name": "Bea"},
        present=frozenset({"name", "phone"}),
        sides={"name": ("h", "p")},
        same=frozenset({"phone"}),
        kinds={"name": "text"},
        problems=(FieldProblem(field="tel", reason="unknown_option", detail="x"),),
    )
    decision = Decision(candidate=candidate, act=Act.UPDATE, write=write, claims=(("email", "ada@example.com"),))

    assert Decision.of(read_lenient(write_lenient(decision))) == decision


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError):
        write_lenient({"x": object(), "name": "\ud800"})
