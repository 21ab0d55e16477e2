"""The flusher's port for the API: who is served, and how secrets and certificates are replaced."""

import http.client
import json
import ssl
import time
from pathlib import Path

import pytest

from busyapi.audit.record import encode_entry
from testkit.api_client import USAGE, check_problem, check_stored, check_unavailable, send
from testkit.audit import make_entry
from testkit.certificates import Certificates, make_certificates
from testkit.http1 import fetch
from testkit.processes import Stack
from testkit.readers import Readers
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks

OLD, NEW = "old-secret-3f9c0d77ab21", "new-secret-51ee08c2d9a4"
RELOADED_SECONDS = 1.5
"""Longer than the interval in which files are checked."""


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def post_and_archive(stack: Stack) -> int:
    usage = check_stored(send(stack.port, USAGE))
    stack.wait_until_archived()
    return usage


@pytest.fixture
def secured(stacks: Stacks, valkey: Server, tmp_path: Path) -> Stack:
    """Start a stack whose API and flusher have a file of secrets each, with the same content."""
    for role in ("api", "flusher"):
        (tmp_path / role).write_text(OLD + "\n")
    stack = stacks(valkey, settings={"BUSYAPI_ARCHIVE_SECRET_FILE": str(tmp_path / "flusher")})
    stack.apis[0].environment["BUSYAPI_ARCHIVE_SECRET_FILE"] = str(tmp_path / "api")
    stack.apis[0].restart()
    return stack


class TestSecret:
    """With a shared secret, only its holders are served."""

    @pytest.mark.parametrize("sent", ["", "Bearer", "Bearer wrong", f"Basic {OLD}", OLD, OLD[:-1]])
    def test_wrong_secret_is_401(self, secured: Stack, sent: str) -> None:
        usage = post_and_archive(secured)
        port = secured.flushers[0].archive_port
        headers = {"authorization": sent} if sent else {}
        for answer in (
            fetch(port, f"/usages/{usage}", headers=headers),
            fetch(port, "/audit", method="POST", body=b"{}", headers=headers),
        ):
            check_problem(answer, 401)
            assert answer.headers["www-authenticate"] == 'Bearer realm="busyapi-archive"'
        assert fetch(port, f"/usages/{usage}", headers=bearer(OLD)).status == 200
        assert not (secured.archive / "p00/audit").exists()

    def test_lookups_work_and_the_other_port_has_none(self, secured: Stack) -> None:
        usage = post_and_archive(secured)
        assert fetch(secured.port, f"/api/usages/{usage}").status == 200
        (flusher,) = secured.flushers
        # An API process of 0.2.0 passes 403 on as 503, and would pass 404 on as 404.
        check_problem(fetch(flusher.port, f"/usages/{usage}"), 403)
        check_problem(fetch(flusher.port, f"/usages/{usage}", headers=bearer(OLD)), 403)
        for path in ("/livez", "/readyz", "/metrics"):
            assert fetch(flusher.port, path).status == 200
            assert fetch(flusher.archive_port, path).status == 404

    def test_api_with_a_wrong_secret_answers_503(self, secured: Stack, tmp_path: Path) -> None:
        usage = post_and_archive(secured)
        (tmp_path / "api").write_text(NEW)
        time.sleep(RELOADED_SECONDS)
        check_unavailable(fetch(secured.port, f"/api/usages/{usage}"), "no")
        assert "it answered 401" in secured.apis[0].log.read_text()
        assert OLD not in secured.apis[0].log.read_text()

    @pytest.mark.faults
    @pytest.mark.parametrize("first", ["api", "flusher"])
    def test_secret_is_rotated_under_load_without_a_failed_lookup(
        self, secured: Stack, tmp_path: Path, first: str
    ) -> None:
        usage = post_and_archive(secured)
        files = [tmp_path / first, tmp_path / ("flusher" if first == "api" else "api")]
        with Readers(secured.port, [usage], {}) as readers:
            for content in (f"{NEW}\n{OLD}\n", f"{NEW}\n"):
                for file in files:
                    file.write_text(content)
                    before = len(readers.reads)
                    time.sleep(RELOADED_SECONDS)
                    assert len(readers.reads) > before
        assert {read.status for read in readers.reads} == {200}
        port = secured.flushers[0].archive_port
        check_problem(fetch(port, f"/usages/{usage}", headers=bearer(OLD)), 401)

    def test_file_that_cannot_be_used_leaves_the_secret_in_force(
        self, secured: Stack, tmp_path: Path
    ) -> None:
        usage = post_and_archive(secured)
        port = secured.flushers[0].archive_port
        for content in ("", "short\n"):
            (tmp_path / "flusher").write_text(content)
            time.sleep(RELOADED_SECONDS)
            assert fetch(port, f"/usages/{usage}", headers=bearer(OLD)).status == 200
            check_problem(fetch(port, f"/usages/{usage}"), 401)
        assert '"files_not_reloaded"' in secured.flushers[0].log.read_text()


class TestWithoutSecret:
    """Without a secret both ports serve lookups, as every API version expects."""

    def test_both_ports_serve_lookups(self, contract: Stack) -> None:
        usage = post_and_archive(contract)
        (flusher,) = contract.flushers
        for port in (flusher.port, flusher.archive_port):
            assert json.loads(fetch(port, f"/usages/{usage}").body)["id"] == usage
        assert '"archive_port_open"' in flusher.log.read_text()

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (b"", 422),
            (b"{}", 422),
            (b"\n" * 3000, 422),
            (b"x" * (1 << 20), 422),
            (b"x" * ((1 << 20) + 1), 413),
        ],
    )
    def test_false_entries_are_refused(self, contract: Stack, body: bytes, status: int) -> None:
        port = contract.flushers[0].archive_port
        check_problem(fetch(port, "/audit", method="POST", body=body), status)

    def test_false_entry_in_a_header_is_400(self, contract: Stack) -> None:
        port = contract.flushers[0].archive_port
        for value in ("{}", "x", json.dumps({"action": "begin"})):
            answer = fetch(port, "/usages/1", headers={"x-busyapi-audit": value})
            check_problem(answer, 400)


def make_tls_settings(server: Certificates, client: Certificates) -> dict[str, str]:
    return {
        "BUSYAPI_ARCHIVE_CERT_FILE": str(server.certificate),
        "BUSYAPI_ARCHIVE_KEY_FILE": str(server.key),
        "BUSYAPI_ARCHIVE_CLIENT_CA_FILE": str(client.ca),
        "BUSYAPI_ARCHIVE_CA_FILE": str(server.ca),
        "BUSYAPI_ARCHIVE_CLIENT_CERT_FILE": str(client.certificate),
        "BUSYAPI_ARCHIVE_CLIENT_KEY_FILE": str(client.key),
    }


def make_in(folder: Path) -> Certificates:
    folder.mkdir(exist_ok=True)
    return make_certificates(folder)


def ask_over_tls(port: int, path: str, ca: Path, client: Certificates | None) -> int:
    context = ssl.create_default_context(cafile=str(ca))
    if client:
        context.load_cert_chain(client.certificate, client.key)
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture
def tls(stacks: Stacks, valkey: Server, tmp_path: Path) -> Stack:
    """Start a stack whose API and flushers prove their identity to each other."""
    settings = make_tls_settings(make_in(tmp_path / "server"), make_in(tmp_path / "client"))
    return stacks(valkey, settings=settings)


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file as Kubernetes does: no reader sees a part of it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.rename(path)


class TestTls:
    """With TLS and an authority for clients, only holders of a certificate are served."""

    def test_only_a_certificate_of_the_authority_is_accepted(
        self, tls: Stack, tmp_path: Path
    ) -> None:
        usage = post_and_archive(tls)
        assert fetch(tls.port, f"/api/usages/{usage}").status == 200
        port = tls.flushers[0].archive_port
        ca, path = tmp_path / "server" / "ca.pem", f"/usages/{usage}"
        files = {
            name: tmp_path / "client" / name for name in ("ca.pem", "server.pem", "server.key")
        }
        client = Certificates(*files.values())
        assert ask_over_tls(port, path, ca, client) == 200
        for other in (None, make_in(tmp_path / "stranger")):
            with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
                ask_over_tls(port, path, ca, other)
        check_problem(fetch(tls.flushers[0].port, path), 403)
        with pytest.raises((OSError, http.client.HTTPException)):
            fetch(port, path)  # without TLS

    def test_flusher_that_the_api_does_not_trust_gets_no_request(
        self, tls: Stack, tmp_path: Path
    ) -> None:
        usage = post_and_archive(tls)
        (api,) = tls.apis
        api.environment["BUSYAPI_ARCHIVE_CA_FILE"] = str(make_in(tmp_path / "stranger").ca)
        api.restart()
        check_unavailable(fetch(tls.port, f"/api/usages/{usage}"), "no")
        assert "is refused" in api.log.read_text()

    @pytest.mark.faults
    def test_certificate_is_replaced_without_a_failed_lookup(
        self, tls: Stack, tmp_path: Path
    ) -> None:
        usage = post_and_archive(tls)
        port = tls.flushers[0].archive_port
        before = read_server_certificate(port, tmp_path)
        used, new = tmp_path / "server", make_in(tmp_path / "new")
        with Readers(tls.port, [usage], {}) as readers:
            authorities = (used / "ca.pem").read_bytes() + new.ca.read_bytes()
            replace_file(used / "ca.pem", authorities)
            time.sleep(RELOADED_SECONDS)
            replace_file(used / "server.key", new.key.read_bytes())  # of no use without the next
            time.sleep(RELOADED_SECONDS)
            replace_file(used / "server.pem", new.certificate.read_bytes())
            wait_until(
                lambda: read_server_certificate(port, tmp_path) != before, "the new certificate"
            )
            replace_file(used / "ca.pem", new.ca.read_bytes())
            time.sleep(RELOADED_SECONDS)
            answered = len(readers.reads)
            wait_until(lambda: len(readers.reads) > answered + 20, "more reads")
        assert {read.status for read in readers.reads} == {200}
        tls.apis[0].restart()  # so that it connects again
        assert fetch(tls.port, f"/api/usages/{usage}").status == 200


def read_server_certificate(port: int, folder: Path) -> bytes:
    """Return the certificate that the port presents."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(folder / "client" / "server.pem", folder / "client" / "server.key")
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    try:
        connection.connect()
        return connection.sock.getpeercert(binary_form=True) or b""
    finally:
        connection.close()


def test_entries_of_the_api_are_accepted(contract: Stack) -> None:
    """The negative control of `test_false_entries_are_refused`."""
    port = contract.flushers[0].archive_port
    body = b"\n".join(encode_entry(make_entry(usage)) for usage in range(1, 4))
    assert fetch(port, "/audit", method="POST", body=body).status == 204
