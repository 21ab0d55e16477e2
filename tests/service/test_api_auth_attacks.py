"""Ways around authentication that must fail: paths, proxy headers, certificates."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from testkit.api_client import (
    BODY,
    USAGE,
    RawConnection,
    check_nothing_stored,
    check_problem,
    check_stored,
    render_request,
    send,
)
from testkit.http1 import Answer
from testkit.processes import Api, Stack
from tests.service.conftest import StartApi

URI, SUBJECT = "spiffe://cluster.local/ns/clinic/sa/gateway", "CN=device-7,O=Clinic"
FILE = f"""
[tokens.writer]
sha256 = "{sha256(b"writer").hexdigest()}"
scopes = ["write"]

[certificates.gateway]
uri = "{URI}"
scopes = ["write", "read"]

[certificates.device]
subject = "{SUBJECT}"
scopes = ["write"]
patient_id = {json.dumps(USAGE["patientId"])}
"""
PROXY, NO_PROXY = "127.0.0.0/8", "192.0.2.0/24"
ENVOY = f"X-Forwarded-Client-Cert: Hash=abc;URI={URI}"
NGINX = ("ssl-client-verify: SUCCESS", f"ssl-client-subject-dn: {SUBJECT}")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def closed(start_api: StartApi, tokens: Path) -> Api:
    """A process without trusted proxies, where a request without a credential may do nothing."""
    return start_api(BUSYAPI_TOKENS_FILE=str(tokens))


def ask(api: Api, method: str, path: str, *headers: str, body: bytes = b"") -> Answer:
    """Send one request with exactly these headers."""
    with RawConnection(api.port) as device:
        device.send(render_request(method, path, body, headers=headers))
        return device.read_answer()


def post_once(api: Api, *headers: str) -> int:
    """Post a usage and return the status."""
    return ask(api, "POST", "/api/usages", *headers, body=BODY).status


def post(api: Api, *headers: str) -> int:
    """Post a usage twice, of which the second may take the fast path; return the status."""
    one, two = (post_once(api, *headers) for _ in range(2))
    assert one == two
    return one


PATHS = """
/api/usages/{id} //api/usages/{id} /api//usages/{id} /api/usages//{id} /./api/usages/{id}
/api/./usages/{id} /api/../api/usages/{id} /x/../api/usages/{id} /livez/../api/usages/{id}
/openapi.json/../api/usages/{id} /api/usages/{id}/ /api/usages/{id}. /api/usages/{id}.json
/api/usages/{id};a=b /api/usages/{id}? /api/usages/{id}%20 /api/usages/%20{id} /api/usages/+{id}
/api%2fusages%2f{id} /api/usages%2f{id} /api/usages%252f{id} /%61pi/usages/{id} /api/us%61ges/{id}
/api/usages/..%2fusages%2f{id} /livez%2f..%2fapi/usages/{id} /API/USAGES/{id} /Api/usages/{id}
/api/usages/0{id} /api/usages/-{id} /api/usages/{id}e0 /api/usages/{id}.0 /api/usages/0x{id}
/api/usages/count /api/usages/count/ /api/usages//count /api/usages/%63ount /api/usages/Count
/api/usages/count/. /api/usages/{id}/../count /api\\usages\\{id} /api/usages/{id}%00
/api/usages/{id}%0a http://livez/api/usages/{id} http://a//api/usages/{id} //livez/api/usages/{id}
"""


@pytest.mark.parametrize("path", PATHS.split())
def test_no_spelling_of_a_path_reads_without_the_right(
    contract: Stack, closed: Api, path: str
) -> None:
    number = check_stored(send(contract.port, USAGE))
    for method in ("GET", "HEAD"):
        for credential in ((), ("Authorization: Bearer writer",)):
            with RawConnection(closed.port) as device:
                device.send(render_request(method, path.format(id=number), headers=credential))
                answer = device.read_head()
            assert answer.status in {400, 401, 403, 404, 405}, (method, path)


@pytest.mark.parametrize(
    "header",
    [
        "X-Original-URL: /livez",
        "X-Rewrite-URL: /livez",
        "X-HTTP-Method-Override: GET",
        "X-Forwarded-User: admin",
        "X-Authenticated-User: admin",
        "X-Auth-Request-User: admin",
        "X-Remote-User: admin",
        "X-Forwarded-Host: localhost",
        "X-Forwarded-For: 127.0.0.1",
        "Forwarded: for=127.0.0.1",
        "X-Real-IP: 127.0.0.1",
        "Cookie: authorization=Bearer writer",
        "Proxy-Authorization: Bearer writer",
        "X-Authorization: Bearer writer",
        ENVOY,
        NGINX[0],
        "Client-Cert: :AAAA:",
    ],
)
def test_a_forged_header_is_no_credential(contract: Stack, closed: Api, header: str) -> None:
    more = NGINX[1:] if header == NGINX[0] else ()
    with check_nothing_stored(contract.port):
        assert post_once(closed, header, *more) in {401, 429}
        assert ask(closed, "GET", "/api/usages/1", header, *more).status in {401, 429}
        assert ask(closed, "GET", "/api/usages/count", header, *more).status in {401, 429}


def test_a_token_in_the_query_is_no_credential(closed: Api) -> None:
    for name in ("access_token", "token", "authorization"):
        path = f"/api/usages?{name}=writer"
        assert ask(closed, "POST", path, body=BODY).status in {401, 429}


class TestClientCertificates:
    """Names of client certificates count only from trusted proxies, in the form of the setting."""

    def test_envoy(self, contract: Stack, start_api: StartApi, tokens: Path) -> None:
        number = check_stored(send(contract.port, USAGE))
        api = start_api(
            BUSYAPI_TOKENS_FILE=str(tokens),
            BUSYAPI_CLIENT_CERTIFICATES="envoy",
            BUSYAPI_TRUSTED_PROXIES=PROXY,
        )
        address = "X-Forwarded-For: 198.51.100.{}"
        assert post(api, ENVOY) == 201
        assert ask(api, "GET", f"/api/usages/{number}", ENVOY).status == 200
        assert post(api, f"{ENVOY},URI=unknown", address.format(1)) == 401
        assert post(api, f"X-Forwarded-Client-Cert: URI=unknown,URI={URI}") == 201
        assert post(api, "X-Forwarded-Client-Cert: broken", address.format(2)) == 401
        assert post(api, *NGINX, address.format(3)) == 401
        # A token that was sent counts, also a wrong one.
        assert post(api, ENVOY, "Authorization: Bearer writer") == 201
        assert post(api, ENVOY, "Authorization: Bearer wrong", address.format(4)) == 401

    def test_nginx(self, start_api: StartApi, tokens: Path) -> None:
        api = start_api(
            BUSYAPI_TOKENS_FILE=str(tokens),
            BUSYAPI_CLIENT_CERTIFICATES="nginx",
            BUSYAPI_TRUSTED_PROXIES=PROXY,
        )
        assert post(api, *NGINX) == 201
        other = BODY.replace(USAGE["patientId"].encode(), b"another")
        check_problem(ask(api, "POST", "/api/usages", *NGINX, body=other), 403)
        assert post(api, "ssl-client-verify: FAILED:expired", NGINX[1]) == 401
        assert post(api, "ssl-client-verify: NONE", NGINX[1]) == 401
        assert post(api, NGINX[1]) == 401
        assert post(api, *NGINX, "ssl-client-subject-dn: CN=other") == 401
        assert post(api, ENVOY) == 401

    @pytest.mark.parametrize(("form", "headers"), [("envoy", (ENVOY,)), ("nginx", NGINX)])
    def test_headers_of_a_stranger_are_ignored(
        self,
        contract: Stack,
        start_api: StartApi,
        tokens: Path,
        form: str,
        headers: tuple[str, ...],
    ) -> None:
        api = start_api(
            BUSYAPI_TOKENS_FILE=str(tokens),
            BUSYAPI_CLIENT_CERTIFICATES=form,
            BUSYAPI_TRUSTED_PROXIES=NO_PROXY,
        )
        with check_nothing_stored(contract.port):
            assert post(api, *headers, "X-Forwarded-For: 192.0.2.7") == 401
        assert post(api, "Authorization: Bearer writer") == 201


class TestFailureLimit:
    """Failed credentials are limited by address, behind trusted proxies that of the client."""

    @staticmethod
    def count_refusals(api: Api, *headers: str) -> int:
        """Send more requests than an address may fail; return how many got 401, not 429."""
        statuses = [ask(api, "GET", "/api/usages/1", *headers).status for _ in range(90)]
        assert set(statuses) <= {401, 429}
        return statuses.count(401)

    def test_behind_a_trusted_proxy_each_client_has_its_own(
        self, start_api: StartApi, tokens: Path
    ) -> None:
        api = start_api(BUSYAPI_TOKENS_FILE=str(tokens), BUSYAPI_TRUSTED_PROXIES=PROXY)
        assert self.count_refusals(api, "X-Forwarded-For: 198.51.100.1") < 90
        # A client can prepend addresses, but the proxy appends its own.
        forged = "X-Forwarded-For: 203.0.113.{}, 198.51.100.1"
        statuses = {ask(api, "GET", "/api/usages/1", forged.format(n)).status for n in range(20)}
        assert 429 in statuses
        other = ask(api, "GET", "/api/usages/1", "X-Forwarded-For: 198.51.100.2")
        assert other.status == 401
        log = api.log.read_text()
        assert '"address": "198.51.100.1"' in log or '"address":"198.51.100.1"' in log

    def test_without_trusted_proxies_the_header_changes_nothing(
        self, start_api: StartApi, tokens: Path
    ) -> None:
        api = start_api(BUSYAPI_TOKENS_FILE=str(tokens))
        statuses = [
            ask(api, "GET", "/api/usages/1", f"X-Forwarded-For: 198.51.100.{n}").status
            for n in range(90)
        ]
        assert statuses.count(401) < 90
