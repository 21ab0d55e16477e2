"""TLS of the bundled Valkey: where the certificate comes from, who has which file, and rotation."""

import json
import ssl
import time
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509

from testkit.chart.lookups import with_lookup
from testkit.chart.rendering import (
    CHART,
    Json,
    environment,
    find_object,
    of_kind,
    pod_spec,
    pods,
    render,
    render_notes,
    settings_of,
    values_of,
)
from tests.chart.test_secrets import read_secret

API, FLUSHER = ("Deployment", "busyapi"), ("StatefulSet", "busyapi-flusher")
VALKEY = ("StatefulSet", "busyapi-valkey")
EXPORTER = ("Deployment", "busyapi-valkey-exporter")
CLIENTS = (API, FLUSHER, EXPORTER)
OWN = "busyapi-valkey-tls"
WAYS: dict[str, tuple[Json, str]] = {
    "chart": ({}, OWN),
    "existing Secret": ({"existingSecret": "mine"}, "mine"),
    "cert-manager": ({"issuerRef": {"name": "ca"}}, "busyapi-valkey-cert"),
}
YEAR_SECONDS = 365 * 86400


def with_tls(**tls: Any) -> Json:
    """Return values with TLS and all clients of Valkey."""
    return {"valkey": {"tls": {"enabled": True} | tls, "metrics": {"enabled": True}}}


def mounted_keys(documents: list[Json], workload: tuple[str, str], path: str) -> dict[str, str]:
    """Return the Secret and key of each file that the first container has at the path."""
    spec = pod_spec(documents, *workload)
    mounts = [m for m in spec["containers"][0]["volumeMounts"] if m["mountPath"] == path]
    names = [mount["name"] for mount in mounts if mount["readOnly"]]
    return {
        item["path"]: f"{volume['secret']['secretName']}/{item['key']}"
        for volume in spec["volumes"]
        if volume["name"] in names
        for item in volume["secret"]["items"]
    }


def read_conf(documents: list[Json]) -> dict[str, str]:
    """Return the settings of valkey.conf."""
    text = find_object(documents, "ConfigMap", "busyapi-valkey")["data"]["valkey.conf"]
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split(None, 1) for line in lines)


def test_by_default_there_is_no_tls() -> None:
    documents = render({"valkey": {"metrics": {"enabled": True}}})
    assert read_conf(documents)["port"] == "6379"
    assert settings_of(documents).redis_url == "redis://busyapi-valkey:6379"
    assert "tls-" not in str(documents)
    assert "rediss" not in str(documents)
    assert "- TLS to Valkey" in render_notes()


@pytest.mark.parametrize("way", WAYS)
def test_valkey_has_the_certificate_and_clients_the_ca(way: str) -> None:
    tls, secret = WAYS[way]
    documents = render(with_tls(**tls))
    assert mounted_keys(documents, VALKEY, "/etc/valkey-tls") == {
        "tls.crt": f"{secret}/tls.crt",
        "tls.key": f"{secret}/tls.key",
    }
    for client in CLIENTS:
        files = mounted_keys(documents, client, "/etc/busyapi/redis-ca")
        assert files == {"ca.crt": f"{secret}/ca.crt"}, client
    assert "- TLS to Valkey" not in render_notes(with_tls(**tls))


@pytest.mark.parametrize("way", WAYS)
def test_valkey_listens_only_with_tls_and_all_clients_use_it(way: str) -> None:
    documents = render(with_tls(**WAYS[way][0]))
    conf = read_conf(documents)
    assert conf["port"] == "0"
    assert conf["tls-port"] == "6379"
    for name in ("cert", "key"):
        assert conf[f"tls-{name}-file"] == f"/etc/valkey-tls/tls.{name.replace('cert', 'crt')}"
    ca = "/etc/busyapi/redis-ca/ca.crt"
    url = "rediss://busyapi-valkey:6379"
    for client in (API, FLUSHER):
        settings = settings_of(documents, *client)
        assert (settings.redis_url, settings.redis_ca_file) == (url, ca)
    variables = environment(pod_spec(documents, *EXPORTER)["containers"][0])
    assert variables["REDIS_ADDR"] == url
    assert variables["REDIS_EXPORTER_TLS_CA_CERT_FILE"] == ca
    content = json.loads(read_secret(documents, "busyapi-valkey")["exporter.json"])
    assert set(content) == {"rediss://exporter@busyapi-valkey:6379", url}
    (port,) = find_object(documents, "Service", "busyapi-valkey")["spec"]["ports"]
    assert port["appProtocol"] == "tls"


def test_no_pod_has_the_key_of_a_ca() -> None:
    documents = render(with_tls())
    items = {
        item["key"]
        for _, pod in pods(documents)
        for volume in pod["spec"]["volumes"]
        if (volume.get("secret") or {}).get("secretName") == OWN
        for item in volume["secret"]["items"]
    }
    assert items == {"ca.crt", "tls.crt", "tls.key"}


def test_ca_of_a_secret_of_its_own_is_used_by_all_clients() -> None:
    for tls, secret in WAYS.values():
        documents = render(with_tls(caSecret="both", **tls))
        for client in CLIENTS:
            files = mounted_keys(documents, client, "/etc/busyapi/redis-ca")
            assert files == {"ca.crt": "both/ca.crt"}
        assert f"{secret}/tls.crt" in mounted_keys(documents, VALKEY, "/etc/valkey-tls").values()


def test_certificate_of_cert_manager_has_the_name_that_clients_use() -> None:
    issuer = {"name": "ca", "kind": "ClusterIssuer"}
    documents = render(with_tls(issuerRef=issuer))
    (certificate,) = of_kind(documents, "Certificate")
    spec = certificate["spec"]
    assert spec["secretName"] == WAYS["cert-manager"][1]
    assert spec["dnsNames"][0] == urlsplit(settings_of(documents).redis_url).hostname
    assert "server auth" in spec["usages"]
    assert spec["issuerRef"] == issuer | {"group": "cert-manager.io"}
    assert OWN not in str(documents)
    for tls in (WAYS["chart"][0], WAYS["existing Secret"][0]):
        assert not of_kind(render(with_tls(**tls)), "Certificate")


def test_valkey_cli_of_a_probe_uses_tls_and_other_probes_are_as_given() -> None:
    probe = pod_spec(render(with_tls()), *VALKEY)["containers"][0]["readinessProbe"]
    plain = pod_spec(render(), *VALKEY)["containers"][0]["readinessProbe"]
    command = plain["exec"]["command"]
    assert probe["exec"]["command"] == ["valkey-cli", "--tls", "--insecure", *command[1:]]
    assert probe | plain == plain
    for mine in (["true"], ["valkey-cli", "--tls", "ping"]):
        values = with_tls()
        values["valkey"]["livenessProbe"] = {"exec": {"command": mine}, "tcpSocket": None}
        container = pod_spec(render(values), *VALKEY)["containers"][0]
        assert container["livenessProbe"]["exec"]["command"] == mine


def test_only_a_container_of_valkeys_own_pod_may_set_the_certificate() -> None:
    documents = render(with_tls())
    data = read_secret(documents, "busyapi-valkey")
    (user,) = (line for line in data["users.acl"].splitlines() if "user tls-reload" in line)
    assert user.endswith("resetchannels -@all +config|set")
    owners = [name for name, pod in pods(documents) if "tls-reload-password" in str(pod)]
    assert owners == ["StatefulSet/busyapi-valkey"]
    for values in ({}, with_tls()):
        assert "tls-reload-password" not in str(
            [pod for name, pod in pods(render(values)) if "valkey" not in name]
        )


def test_other_users_keep_their_passwords_when_tls_is_turned_on(tmp_path: Path) -> None:
    old = {"api-password": "YQ==", "flusher-password": "Zg=="}
    chart = with_lookup(tmp_path, "Secret", to_template(old))
    data = find_object(render(with_tls(), chart=chart), "Secret", "busyapi-valkey")["data"]
    assert data.items() >= old.items()
    assert len(b64decode(data["tls-reload-password"])) == 32


def test_turning_tls_on_restarts_valkey_and_its_clients() -> None:
    before, after = (
        {name: pod["metadata"].get("annotations") for name, pod in pods(render(values))}
        for values in ({"valkey": {"metrics": {"enabled": True}}}, with_tls())
    )
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"/".join(workload) for workload in (API, FLUSHER, VALKEY)}


def test_values_for_production_use_tls() -> None:
    documents = render(values_of(CHART / "values-production.yaml"))
    assert settings_of(documents).redis_url.startswith("rediss://")
    assert read_conf(documents)["port"] == "0"


def to_template(data: dict[str, str]) -> str:
    """Return an object with this data as an expression of a template."""
    pairs = " ".join(f"{json.dumps(name)} {json.dumps(value)}" for name, value in data.items())
    return f'(dict "data" (dict {pairs}))'


def rotate(folder: Path, data: dict[str, str], rotation: int) -> dict[str, str]:
    """Return the data of the Secret after an upgrade with this number."""
    chart = with_lookup(folder, "Secret", to_template(data))
    documents = render(with_tls(rotation=rotation), chart=chart, upgrade=True)
    new: dict[str, str] = find_object(documents, "Secret", OWN)["data"]
    return new


def first_data() -> dict[str, str]:
    data: dict[str, str] = find_object(render(with_tls()), "Secret", OWN)["data"]
    return data


def is_trusted(folder: Path, server: dict[str, str], client: dict[str, str]) -> bool:
    """Return whether a client with the CAs of one Secret accepts the certificate of another."""
    files = {name: folder / name for name in ("tls.crt", "tls.key", "ca.crt")}
    for name, path in files.items():
        data = client if name == "ca.crt" else server
        path.write_bytes(b64decode(data[name]))
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(files["tls.crt"], files["tls.key"])
    connecting = ssl.create_default_context(cafile=str(files["ca.crt"]))
    # As Python 3.13 does by default.
    connecting.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        connecting.wrap_bio(to_client, to_server, server_hostname="busyapi-valkey"),
        accepting.wrap_bio(to_server, to_client, server_side=True),
    ]
    for side in sides * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError:
            return False
    return sides[0].version() == "TLSv1.3"


def test_chart_makes_a_certificate_for_the_name_that_clients_use(tmp_path: Path) -> None:
    data = first_data()
    assert is_trusted(tmp_path, data, data)
    another = find_object(render(with_tls(), upgrade=True), "Secret", OWN)["data"]
    assert not is_trusted(tmp_path, data, another)
    certificate = x509.load_pem_x509_certificate(b64decode(data["tls.crt"]))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        "busyapi-valkey",
        "busyapi-valkey.usages",
        "busyapi-valkey.usages.svc",
    ]


def test_chart_keeps_its_certificate_over_an_upgrade_and_an_uninstall(tmp_path: Path) -> None:
    data = first_data()
    assert rotate(tmp_path, data, 1) == data
    metadata = find_object(render(with_tls()), "Secret", OWN)["metadata"]
    assert metadata["annotations"]["helm.sh/resource-policy"] == "keep"
    assert f"The Secret {OWN}" in render_notes(with_tls())
    assert f"The Secret {OWN}" not in render_notes(with_tls(existingSecret="mine"))


def test_pods_that_read_their_files_before_or_after_others_trust_valkey(tmp_path: Path) -> None:
    """After each rotation old and new certificates meet old and new CAs."""
    generations = [first_data()]
    for rotation in (2, 3):
        generations.append(rotate(tmp_path / str(rotation), generations[-1], rotation))
    trusted = {
        (server, client)
        for server in range(3)
        for client in range(3)
        if is_trusted(tmp_path, generations[server], generations[client])
    }
    assert trusted == {(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2)}


def test_incomplete_secret_is_replaced(tmp_path: Path) -> None:
    data = first_data()
    del data["tls.key"]
    new = rotate(tmp_path, data, 1)
    assert new.keys() == data.keys() | {"tls.key"}
    assert is_trusted(tmp_path, new, data)


@pytest.mark.parametrize(("age", "is_kept"), [(YEAR_SECONDS - 3600, True), (YEAR_SECONDS, False)])
def test_upgrade_replaces_a_certificate_that_is_a_year_old(
    tmp_path: Path,
    age: int,
    is_kept: bool,  # noqa: FBT001
) -> None:
    data = first_data()
    made = str(int(time.time()) - age - 1)
    data["made"] = b64encode(made.encode()).decode()
    new = rotate(tmp_path, data, 1)
    assert (new == data) == is_kept
    assert is_trusted(tmp_path, new, data)
    assert is_trusted(tmp_path, data, new)


def test_rotation_restarts_no_pod() -> None:
    templates = [
        [pod for _, pod in pods(render(with_tls(rotation=rotation)))] for rotation in (1, 2)
    ]
    assert templates[0] == templates[1]
