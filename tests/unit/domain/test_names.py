"""What a person gives as name, id or secret of a connector is plain, or refused in a sentence."""

from __future__ import annotations

import pytest

from pipeline.domain.names import InvalidName, connector_name, hull_id, secret

ID = "65f000000000000000000001"


@pytest.mark.parametrize("name", ["acme", "Acme-2.test_x", "a" * 63, "1a", f"hull-{ID}", ID + "0", ID[:-1] + "g"])
def test_a_plain_name_is_valid(name: str) -> None:
    assert connector_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a b",
        "-a",
        ".",
        "..",
        "a" * 64,
        "123",
        ID,
        ID.upper(),
        "a/b",
        "a\r\nb",
        "a\n",
        "ä",
        "<b>",
        "{{7}}",
        "a\x00",
    ],
)
def test_a_name_that_could_be_taken_for_something_else_is_not(name: str) -> None:
    with pytest.raises(InvalidName, match="is not a valid connector name"):
        connector_name(name)


def test_an_id_is_written_as_hull_writes_it() -> None:
    assert hull_id("ABCDEF000000000000000001") == "abcdef000000000000000001"


@pytest.mark.parametrize(
    "text", ["", "1", ID + "0", ID[:-1] + "g", f"{ID}\n", f"{ID}\r\nX: 1", "../" * 8, "\uff11" * 24]
)
def test_anything_else_is_no_id(text: str) -> None:
    with pytest.raises(InvalidName, match="24 hex digits"):
        hull_id(text)


@pytest.mark.parametrize("text", ["", "canary secret", "canary\r\nX-Evil: 1", "canary\n", "canäry", "canary" * 200])
def test_a_secret_has_only_characters_of_a_header(text: str) -> None:
    assert secret("s3cr3t!~", "the token") == "s3cr3t!~"

    with pytest.raises(InvalidName) as caught:
        secret(text, "the token")

    assert str(caught.value).startswith("the token is not valid")
    assert "can" not in str(caught.value)
