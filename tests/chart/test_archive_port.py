"""Certificates of the flushers' port: each role has its own, and only the CA of the other one."""

from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from testkit.chart.rendering import (
    CHART,
    ROOT,
    Json,
    environment,
    find_object,
    pod_spec,
    render,
    settings_of,
    values_of,
)

API, FLUSHER = ("Deployment", "busyapi"), ("StatefulSet", "busyapi-flusher")
TEST = ("Pod", "busyapi-test")
FOLDER = "/etc/busyapi/archive-tls"
EXAMPLE: list[Json] = [
    *yaml.safe_load_all((ROOT / "docs" / "how-to" / "archive-port.yaml").read_text())
]


def with_tls(**secrets: str) -> list[Json]:
    return render({"archivePort": {"tls": secrets}})


def mounted_keys(documents: list[Json], workload: tuple[str, str]) -> dict[str, tuple[str, str]]:
    """Return the Secret and the key of each file in the folder of certificates."""
    spec = pod_spec(documents, *workload)
    mounts = {mount["name"]: mount for mount in spec["containers"][0]["volumeMounts"]}
    (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "archive-tls")
    assert mounts["archive-tls"] == {"name": "archive-tls", "mountPath": FOLDER, "readOnly": True}
    return {
        item["path"]: (source["secret"]["name"], item["key"])
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }


def tls_settings(documents: list[Json], workload: tuple[str, str]) -> dict[str, Any]:
    """Return the settings with files in the folder of certificates, without the folder."""
    settings = vars(settings_of(documents, *workload))
    return {
        name: value.removeprefix(f"{FOLDER}/")
        for name, value in settings.items()
        if str(value).startswith(FOLDER)
    }


def archive_protocol(documents: list[Json]) -> str:
    ports = find_object(documents, "Service", "busyapi-flusher")["spec"]["ports"]
    (protocol,) = (port["appProtocol"] for port in ports if port["name"] == "archive")
    return str(protocol)


def test_by_default_the_port_has_no_tls() -> None:
    documents = render()
    assert settings_of(documents).flusher_urls.startswith("http://")
    assert archive_protocol(documents) == "http"
    assert "archive-tls" not in str(documents)


def test_each_role_has_its_own_key_and_only_the_ca_of_the_other() -> None:
    documents = with_tls(existingSecret="f", clientSecret="a")
    for workload, own, other in ((API, "a", "f"), (FLUSHER, "f", "a"), (TEST, "a", "f")):
        assert mounted_keys(documents, workload) == {
            "tls.crt": (own, "tls.crt"),
            "tls.key": (own, "tls.key"),
            "ca.crt": (other, "ca.crt"),
        }
    assert tls_settings(documents, API) == {
        "archive_ca_file": "ca.crt",
        "archive_client_cert_file": "tls.crt",
        "archive_client_key_file": "tls.key",
    }
    assert tls_settings(documents, FLUSHER) == {
        "archive_cert_file": "tls.crt",
        "archive_key_file": "tls.key",
        "archive_client_ca_file": "ca.crt",
    }
    (container,) = pod_spec(documents, *TEST)["containers"]
    assert environment(container)["ARCHIVE_TLS_FOLDER"] == FOLDER


def test_api_uses_https() -> None:
    documents = with_tls(existingSecret="f")
    plain = settings_of(render()).flusher_urls
    assert settings_of(documents).flusher_urls == plain.replace("http:", "https:")
    assert archive_protocol(documents) == "https"


def test_without_a_client_certificate_flushers_ask_for_none() -> None:
    documents = with_tls(existingSecret="f")
    for workload in (API, TEST):
        assert mounted_keys(documents, workload) == {"ca.crt": ("f", "ca.crt")}
    assert mounted_keys(documents, FLUSHER).keys() == {"tls.crt", "tls.key"}
    assert tls_settings(documents, API).keys() == {"archive_ca_file"}
    assert tls_settings(documents, FLUSHER).keys() == {"archive_cert_file", "archive_key_file"}


def test_ca_of_a_secret_of_its_own_replaces_both() -> None:
    documents = with_tls(existingSecret="f", clientSecret="a", caSecret="c")
    for workload in (API, FLUSHER, TEST):
        assert mounted_keys(documents, workload)["ca.crt"] == ("c", "ca.crt")
    alone = with_tls(existingSecret="f", caSecret="c")
    assert mounted_keys(alone, API) == {"ca.crt": ("c", "ca.crt")}
    assert "ca.crt" not in mounted_keys(alone, FLUSHER)


def certificates() -> dict[str, Json]:
    """Return the specs of the example's certificates, by their Secrets."""
    specs = (document["spec"] for document in EXAMPLE if document["kind"] == "Certificate")
    return {spec["secretName"]: spec for spec in specs}


@pytest.mark.parametrize("partitions", [1, 3])
def test_flushers_certificate_of_the_example_has_the_host_of_the_first_partition(
    partitions: int,
) -> None:
    documents = render({"config": {"partitions": partitions}})
    url = settings_of(documents).flusher_urls.replace("{partition}", "0")
    spec = certificates()["busyapi-flusher-tls"]
    assert spec["dnsNames"] == [urlsplit(url).hostname]
    assert "server auth" in spec["usages"]


def test_values_for_production_use_the_secrets_of_the_example_and_a_salt() -> None:
    values = values_of(CHART / "values-production.yaml")
    secrets = values["archivePort"]["tls"]
    assert secrets["existingSecret"] == "busyapi-flusher-tls"
    client = certificates()[secrets["clientSecret"]]
    assert client["usages"] == ["digital signature", "client auth"]
    documents = render(values)
    assert settings_of(documents).writer_salt_file
    assert tls_settings(documents, FLUSHER)["archive_client_ca_file"]


def test_ca_of_the_example_issues_only_the_two_certificates() -> None:
    issuers = {document["metadata"]["name"]: document for document in EXAMPLE}
    used: dict[str, list[str]] = {}
    for secret, spec in certificates().items():
        used.setdefault(spec["issuerRef"]["name"], []).append(secret)
    (authority,) = (spec for spec in certificates().values() if spec.get("isCA"))
    (issuer,) = (
        name
        for name, document in issuers.items()
        if document["spec"].get("ca") == {"secretName": authority["secretName"]}
    )
    assert sorted(used[issuer]) == ["busyapi-api-tls", "busyapi-flusher-tls"]
    assert set(chain(*used.values())) == certificates().keys()
    assert {issuers[name]["kind"] for name in used} == {"Issuer"}


def test_page_names_the_example_and_its_secrets() -> None:
    page = Path(ROOT / "docs" / "how-to" / "archive-port.md").read_text()
    for text in ("docs/how-to/archive-port.yaml", "busyapi-flusher-tls", "busyapi-api-tls"):
        assert text in page
