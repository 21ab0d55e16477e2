"""Who may write and read: the files of credentials, and the settings of the API."""

import argparse
import json
import shlex
from base64 import b64decode, b64encode
from dataclasses import fields
from hashlib import sha256
from pathlib import Path

import pytest

from busyapi.auth import token_command
from busyapi.auth.proxies import parse_trusted_proxies
from busyapi.auth.token_folder import parse_token_files
from busyapi.settings import Settings
from testkit.chart.lookups import with_lookup
from testkit.chart.refused_values import EXPOSED
from testkit.chart.rendering import (
    CHART,
    OPEN,
    Json,
    environment,
    find_object,
    load_chart,
    of_kind,
    pod_spec,
    render,
    render_notes,
    settings_of,
    values_of,
)

TABLE = '[tokens.{0}]\nsha256 = "{1}"\nscopes = ["write"]\n'
DEVICE = TABLE.format("device", "1" * 64)
PROVIDER: Json = {
    "keys": "https://p.example.org/jwks.json",
    "issuer": "https://p.example.org",
    "audience": "busyapi",
}
EVERYTHING: Json = values_of(CHART / "ci" / "everything-values.yaml")


def api_spec(documents: list[Json]) -> Json:
    return pod_spec(documents, "Deployment", "busyapi")


def read_secret(documents: list[Json], name: str) -> dict[str, bytes]:
    data = find_object(documents, "Secret", name)["data"]
    return {key: b64decode(value) for key, value in data.items()}


def mounted_files(documents: list[Json]) -> dict[str, bytes]:
    """Return the files of credentials in an API pod, by their names."""
    volumes = {volume["name"]: volume for volume in api_spec(documents)["volumes"]}
    if "credentials" not in volumes:
        return {}
    return {
        item["path"]: read_secret(documents, source["secret"]["name"])[item["key"]]
        for source in volumes["credentials"]["projected"]["sources"]
        for item in source["secret"]["items"]
    }


def test_by_default_only_helm_test_may_post_and_read() -> None:
    documents = render()
    settings = settings_of(documents)
    assert settings.anonymous == ""
    assert settings.jwt_keys == ""
    assert settings.tokens_file == "/etc/busyapi/auth"
    assert settings.trusted_proxies == settings.client_certificates == ""
    (credential,) = parse_token_files(mounted_files(documents)).tokens.values()
    assert (credential.name, credential.scopes) == ("helm-test", frozenset({"write", "read"}))


def test_token_of_helm_test_is_random_and_matches_its_credential() -> None:
    data = read_secret(render(), "busyapi-test")
    assert len(data["token"]) > 40
    file = parse_token_files({"a.toml": data["credential.toml"]})
    assert set(file.tokens) == {sha256(data["token"]).digest()}
    assert data["token"] not in data["credential.toml"]
    assert data["token"] != read_secret(render(upgrade=True), "busyapi-test")["token"]


def test_token_of_helm_test_survives_an_upgrade(tmp_path: Path) -> None:
    old = b64encode(b"busyapi_old").decode()
    chart = with_lookup(tmp_path, "Secret", f'(dict "data" (dict "token" "{old}"))')
    data = read_secret(render(chart=chart, upgrade=True), "busyapi-test")
    assert data["token"] == b"busyapi_old"
    assert set(parse_token_files({"a": data["credential.toml"]}).tokens) == {
        sha256(b"busyapi_old").digest()
    }


@pytest.mark.parametrize("name", ["busyapi-test", "busyapi-test-outside"])
def test_test_pods_have_their_token_and_no_file_of_credentials(name: str) -> None:
    documents = render(
        OPEN | EXPOSED["ingress.enabled=true"] | {"tests": {"outside": {"url": "http://u"}}}
    )
    spec = find_object(documents, "Pod", name)["spec"]
    (container,) = spec["containers"]
    assert environment(container)["TOKEN_FILE"] == "/etc/busyapi/test/token"
    assert environment(container)["ANONYMOUS_SCOPES"] == "write,read"
    (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "token")
    assert volume["secret"] == {
        "secretName": "busyapi-test",
        "items": [{"key": "token", "path": "token"}],
    }


def test_files_of_all_secrets_come_together() -> None:
    values: Json = {"auth": {"credentials": DEVICE, "tokens": "read a-token\n"}}
    documents = render(values)
    files = mounted_files(documents)
    assert files.keys() == {"credentials.toml", "tokens.toml", "helm-test.toml"}
    names = {entry.name for entry in parse_token_files(files).tokens.values()}
    assert names == {"device", "line-1", "helm-test"}
    secret = {"existingSecret": "mine", "existingSecretKey": "k"}
    existing = render({"auth": values["auth"] | secret})
    sources = str(api_spec(existing)["volumes"])
    item = {"name": "mine", "items": [{"key": "k", "path": "existing.toml"}]}
    assert str(item) in sources
    assert str(item) not in str(api_spec(documents)["volumes"])


def test_without_any_credential_no_file_is_mounted() -> None:
    documents = render({"tests": {"enabled": False}})
    assert settings_of(documents).tokens_file == ""
    assert mounted_files(documents) == {}
    assert "/etc/busyapi/auth" not in str(documents)
    assert [s for s in of_kind(documents, "Secret") if "test" in s["metadata"]["name"]] == []


def test_new_credentials_restart_no_pod() -> None:
    first, second = (
        render({"auth": {"credentials": TABLE.format(name, "1" * 64)}}) for name in ("a", "b")
    )
    for kind in ("Deployment", "StatefulSet", "ConfigMap"):
        assert of_kind(first, kind) == of_kind(second, kind)
    assert mounted_files(first) != mounted_files(second)


def test_entry_of_the_command_in_the_notes_is_a_credential(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (line,) = (line for line in render_notes().splitlines() if "busyapi token create" in line)
    words = shlex.split(line)
    parser = argparse.ArgumentParser()
    token_command.add_command(parser.add_subparsers())
    options = parser.parse_args(words[words.index("token") :])
    options.run(options, Settings())
    output = capsys.readouterr().out
    token = output.splitlines()[1].encode()
    entry = output[output.index("[tokens.") :]
    file = parse_token_files(mounted_files(render({"auth": {"credentials": entry}})))
    assert file.tokens[sha256(token).digest()].name == "my-device"


@pytest.mark.parametrize(
    ("writes", "reads", "scopes"),
    [(True, True, "write,read"), (True, False, "write"), (False, True, "read")],
)
def test_anonymous_scopes_are_those_that_the_values_allow(
    writes: bool,  # noqa: FBT001 - a parameter of the test
    reads: bool,  # noqa: FBT001
    scopes: str,
) -> None:
    values = {"auth": {"allowAnonymousWrites": writes, "allowAnonymousReads": reads}}
    assert settings_of(render(values)).anonymous == scopes


@pytest.mark.parametrize("exposed", EXPOSED.values(), ids=EXPOSED)
@pytest.mark.parametrize(
    "auth",
    [
        {"credentials": DEVICE},
        {"existingSecret": "s"},
        {"tokens": "read t"},
        {"jwt": PROVIDER},
        {"allowAnonymousWrites": True},
        {"allowAnonymousReads": True},
    ],
    ids=json.dumps,
)
def test_exposed_api_is_accepted_with_credentials_or_if_it_is_said_to_be_open(
    exposed: Json, auth: Json
) -> None:
    assert render(exposed | {"auth": auth})


def test_jwt_settings_are_complete_and_have_the_defaults_of_the_service() -> None:
    settings = settings_of(render({"auth": {"jwt": PROVIDER}}))
    plain = {field.name: field.default for field in fields(Settings)}
    jwt = {name: value for name, value in plain.items() if name.startswith("jwt_")}
    given = {f"jwt_{name}": value for name, value in PROVIDER.items()}
    assert {name: getattr(settings, name) for name in jwt} == jwt | given
    changed = settings_of(render(EVERYTHING))
    assert changed.jwt_ca_file == "/etc/busyapi/jwt-ca/ca.crt"
    assert (changed.jwt_leeway, changed.jwt_scope_prefix) == (5, "usages:")
    assert changed.jwt_required_claims == "azp=clinic"
    assert "JWT" not in str(find_object(render(), "ConfigMap", "busyapi"))


def test_every_jwt_value_is_a_setting() -> None:
    variables = {
        name
        for name in find_object(render({"auth": {"jwt": PROVIDER}}), "ConfigMap", "busyapi")["data"]
        if "_JWT_" in name
    }
    keys = load_chart(CHART).values["auth"]["jwt"].keys()
    assert len(variables) == len(keys - {"caSecret", "caSecretKey"})
    known = {field.metadata["name"] for field in fields(Settings) if "_jwt_" in f"_{field.name}"}
    assert variables == known - {"BUSYAPI_JWT_CA_FILE"}


def test_authority_of_the_provider_is_mounted() -> None:
    documents = render(EVERYTHING)
    volumes = {volume["name"]: volume for volume in api_spec(documents)["volumes"]}
    assert volumes["jwt-ca"]["secret"]["secretName"] == "provider-ca"
    assert volumes["jwt-ca"]["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
    (api, *_) = api_spec(documents)["containers"]
    assert {"name": "jwt-ca", "mountPath": "/etc/busyapi/jwt-ca", "readOnly": True} in api[
        "volumeMounts"
    ]


def test_proxies_and_certificates_are_settings_that_the_service_accepts() -> None:
    documents = render(EVERYTHING)
    data = find_object(documents, "ConfigMap", "busyapi")["data"]
    assert data["BUSYAPI_TRUSTED_PROXIES"] == "10.1.0.0/16,fd00::/8"
    assert parse_trusted_proxies(data["BUSYAPI_TRUSTED_PROXIES"])
    assert data["BUSYAPI_CLIENT_CERTIFICATES"] == "envoy"
