"""Files are read from the address that was looked up, under the name they were asked for, and within their limits."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pipeline.clients.downloads import Downloads
from pipeline.clients.ssrf import Guard, guarded_session
from pipeline.errors import PipelineError, Rejected, Retryable
from pipeline.transform.exports import unpack

POLL_S = 0.01
"""How long a server may take to notice that it is to end."""
LINES = b'{"id":"1"}\n{"id":"2"}\n'


@dataclass
class Place:
    """A server on this machine, and what it was asked."""

    port: int
    status: int = 200
    body: bytes = LINES
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    given: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def place() -> Iterator[Place]:
    yield from serve()


def serve(context: ssl.SSLContext | None = None) -> Iterator[Place]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append((self.headers["Host"], self.path))
            made.given.append(dict(self.headers))
            self.send_response(made.status)
            for name, value in {"Content-Length": str(len(made.body)), **made.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(made.body)

        def log_message(self, *_args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    made = Place(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def read(place: Place, path: str = "/a.json?sig=s3", *, max_bytes: int = 10_000, host: str = "127.0.0.1") -> bytes:
    downloads = Downloads(Guard.of([f"{host}:{place.port}"]), make_session=guarded_session)
    with downloads.open(f"http://{host}:{place.port}{path}", max_bytes=max_bytes) as file:
        return b"".join(file.pieces)


def test_a_file_is_read_whole_with_its_query_and_its_hosts_name(place: Place) -> None:
    assert read(place, host="localhost") == LINES
    assert place.asked == [(f"localhost:{place.port}", "/a.json?sig=s3")]
    assert "Hull-Access-Token" not in place.given[0]


def test_a_compressed_file_comes_as_it_is_and_is_unpacked_afterwards(place: Place) -> None:
    place.body, place.headers = gzip.compress(LINES), {"Content-Encoding": "gzip"}

    assert read(place) == place.body
    assert b"".join(unpack([place.body], max_bytes=10_000)) == LINES


def test_what_unpacks_to_more_than_allowed_is_left(place: Place) -> None:
    place.body, place.headers = gzip.compress(b"x" * 5_000_000), {"Content-Encoding": "gzip"}

    with pytest.raises(Rejected, match="export_too_large"):
        list(unpack([read(place)], max_bytes=10_000))


def test_a_large_file_is_left_where_the_limit_is(place: Place) -> None:
    with pytest.raises(Rejected, match="export_too_large"):
        read(place, max_bytes=10)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_of_a_download_are_not_followed(place: Place, status: int) -> None:
    place.status, place.headers = status, {"Location": f"http://127.0.0.1:{place.port}/other"}

    with pytest.raises(Rejected, match="export_host_refused"):
        read(place)

    assert len(place.asked) == 1


@pytest.mark.parametrize(
    ("status", "family", "reason"),
    [
        (403, Rejected, "export_gone"),
        (404, Rejected, "export_gone"),
        (410, Rejected, "export_gone"),
        (429, Retryable, "rate_limited"),
        (503, Retryable, "remote_unavailable"),
    ],
)
def test_the_status_decides_about_a_retry(place: Place, status: int, family: type[PipelineError], reason: str) -> None:
    place.status = status

    with pytest.raises(family) as caught:
        read(place)

    assert caught.value.reason == reason
    assert "s3" not in str(caught.value)


def test_a_file_cut_short_is_tried_again(place: Place) -> None:
    place.headers = {"Content-Length": "1000"}

    with pytest.raises(Retryable, match="page_not_json"):
        read(place)


def test_an_address_that_is_not_listed_is_never_asked(place: Place) -> None:
    downloads = Downloads(Guard.of(["files.example"]), make_session=guarded_session)

    with pytest.raises(Rejected), downloads.open(f"http://127.0.0.1:{place.port}/", max_bytes=10):
        pass

    assert place.asked == []


def test_a_listed_name_that_leads_to_this_machine_is_never_asked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails like an unknown name, so that local services stay hidden."""
    monkeypatch.setattr(socket, "create_connection", None)
    words = []
    for found in (["127.0.0.1"], []):
        guard = replace(Guard.of(["files.example"]), resolve=lambda _host, _port, found=found: found)
        downloads = Downloads(guard, make_session=guarded_session)
        with pytest.raises(Retryable) as caught, downloads.open("https://files.example/a.json", max_bytes=10):
            pass
        words.append(str(caught.value))

    assert words == ["remote_unreachable: GET files.example/a.json: no connection"] * 2
    assert place.asked == []


def test_the_validator_is_a_strong_etag_or_the_time_of_the_last_change(place: Place) -> None:
    downloads = Downloads(Guard.of([f"127.0.0.1:{place.port}"]), make_session=guarded_session)
    validators = []
    for headers in ({"ETag": '"a"'}, {"ETag": 'W/"a"'}, {"Last-Modified": "Mon, 30 Nov 2026 12:00:00 GMT"}, {}):
        place.headers = headers
        with downloads.open(f"http://127.0.0.1:{place.port}/", max_bytes=100) as file:
            validators.append(file.validator)

    assert validators == ['"a"', "", "Mon, 30 Nov 2026 12:00:00 GMT", ""]


@pytest.mark.parametrize(("name", "is_right"), [("files.example", True), ("evil.example", False)])
def test_the_certificate_must_be_for_the_name_not_the_address(tmp_path: Path, name: str, is_right: bool) -> None:
    context, authority = certificate(tmp_path, name)
    for place in serve(context):

        def session_for(guard: Guard) -> requests.Session:
            session = guarded_session(guard)
            session.verify = str(authority)
            return session

        url = f"files.example:{place.port}"
        guard = replace(Guard.of([url]), resolve=lambda _host, _port: ["127.0.0.1"])
        downloads = Downloads(guard, make_session=session_for)
        if is_right:
            with downloads.open(f"https://{url}/a", max_bytes=100) as file:
                assert b"".join(file.pieces) == LINES
            assert place.asked == [(url, "/a")]
        else:
            with pytest.raises(Retryable), downloads.open(f"https://{url}/a", max_bytes=100):
                pass
            assert place.asked == []


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    key = generate_private_key(SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    authority, private = folder / "certificate.pem", folder / "key.pem"
    authority.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, private)
    return context, authority
