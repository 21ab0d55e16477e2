"""Secret values are only in Secrets, and passwords come from the right Secret."""

import hashlib
import re
from base64 import b64decode
from pathlib import Path

import pytest

from testkit.chart.lookups import with_lookup
from testkit.chart.rendering import (
    MODES,
    ROOT,
    Json,
    find_object,
    list_strings,
    mode_name,
    of_kind,
    pods,
    render,
    values_of,
)

PASSWORD = "correct-horse-battery-staple"
TOKENS = "write,read a-token-that-is-hard-to-guess\n"
GIVEN: Json = {
    "valkey": {"enabled": False},
    "externalRedis": {"host": "r.example.org", "username": "u", "password": PASSWORD},
    "auth": {"tokens": TOKENS},
}
SECRETS = (PASSWORD, TOKENS.split()[1])


@pytest.mark.parametrize(
    ("values", "workload", "key"),
    [
        (
            {"valkey": {"auth": {"existingSecret": "s"}}},
            ("StatefulSet", "busyapi-valkey"),
            "users.acl",
        ),
        (
            {"auth": {"writerSalt": {"enabled": True, "existingSecret": "s"}}},
            ("Deployment", "busyapi"),
            "salt",
        ),
    ],
)
def test_changed_existing_secret_rolls_the_pods_that_read_it_at_start(
    values: Json, workload: tuple[str, str], key: str, tmp_path: Path
) -> None:
    templates: dict[tuple[str, str], list[Json]] = {}
    for value in ("b2xk", "bmV3", ""):
        secret = f'(dict "data" (dict "{key}" "{value}" "other" "{value}"))'
        chart = with_lookup(tmp_path / (value or "none"), "Secret", secret)
        for document in render(values, chart=chart):
            if document["kind"] in {"Deployment", "StatefulSet"}:
                name = document["kind"], document["metadata"]["name"]
                templates.setdefault(name, []).append(document["spec"]["template"])
    rolled = {name for name, (old, new, _) in templates.items() if old != new}
    assert rolled == {workload}
    without = [template for _, _, template in templates.values()]
    assert not re.search("checksum/(users|writer-salt)", str(without))


def find_leaks(documents: list[Json], secrets: tuple[str, ...]) -> list[str]:
    """Return the objects other than Secrets that contain a secret, plain or in base64."""
    return [
        f"{document['kind']}/{document['metadata']['name']}"
        for document in documents
        if document["kind"] != "Secret"
        for text in list_strings(document)
        if any(secret in text or secret in decode_base64(text) for secret in secrets)
    ]


def decode_base64(text: str) -> str:
    """Return the decoded text, or nothing if it is not base64."""
    try:
        return b64decode(text, validate=True).decode()
    except ValueError:
        return ""


def read_secret(documents: list[Json], name: str) -> dict[str, str]:
    data = find_object(documents, "Secret", name)["data"]
    return {key: b64decode(value).decode() for key, value in data.items()}


def test_given_password_and_tokens_are_only_in_secrets() -> None:
    documents = render(GIVEN)
    assert find_leaks(documents, SECRETS) == []
    assert read_secret(documents, "busyapi-redis") == {"redis-password": PASSWORD}
    assert read_secret(documents, "busyapi-tokens") == {"tokens": TOKENS}


@pytest.mark.parametrize("where", [{"extraEnv": [{"name": "P", "value": PASSWORD}]}, {}])
def test_leak_is_found(where: Json) -> None:
    annotated = {"podAnnotations": {"p": "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ=="}}
    assert find_leaks(render(GIVEN | (where or annotated)), SECRETS) == ["Deployment/busyapi"]


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_generated_passwords_are_only_in_their_secret(mode: Path) -> None:
    documents = render(values_of(mode))
    values = [
        value
        for document in of_kind(documents, "Secret")
        for value in (document.get("data") or {}).values()
    ]
    lines = {line for value in values for line in b64decode(value).decode().splitlines()}
    assert find_leaks(documents, tuple(line for line in lines if len(line) > 7)) == []


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_no_password_is_in_the_environment(mode: Path) -> None:
    for name, pod in pods(render(values_of(mode))):
        for container in pod["spec"]["containers"]:
            for variable in container.get("env") or []:
                assert "secretKeyRef" not in (variable.get("valueFrom") or {}), name


def test_valkey_passwords_are_random_and_its_users_have_their_digests() -> None:
    data = read_secret(render(), "busyapi-valkey")
    users = dict(line.split(None, 2)[1:] for line in data["users.acl"].splitlines())
    assert users.keys() == {"default", "probe", "api", "flusher"}
    # It has every right, but no client can log in: Valkey replays its file as this user.
    assert users["default"].split()[0] == "off"
    assert "on" not in users["default"].split()
    assert users["probe"].endswith("-@all +ping")
    assert data["api-password"] != data["flusher-password"]
    for role in ("api", "flusher"):
        password = data[f"{role}-password"]
        assert len(password) >= 32
        assert f"#{hashlib.sha256(password.encode()).hexdigest()} " in users[role]
        assert "~busyapi:* " in users[role]
        assert "-@all" in users[role]
        assert password not in data["users.acl"]


def test_no_role_has_a_right_that_can_lose_data() -> None:
    _, acl = read_secret(render(), "busyapi-valkey")["users.acl"].split("\n", 1)
    dangerous = r"\+(@|flush|keys|del\b|config\|set|shutdown|replicaof|acl|debug|eval\b)"
    assert not re.search(dangerous, acl)
    assert re.search(dangerous, acl.replace("+hdel", "+flushall"))


def mounted_secrets(documents: list[Json], kind: str, name: str) -> list[Json]:
    """Return the Secrets that the pods of a workload mount, including projected ones."""
    volumes = find_object(documents, kind, name)["spec"]["template"]["spec"]["volumes"]
    projected = [
        source for v in volumes for source in (v.get("projected") or {}).get("sources", [])
    ]
    return [
        {"name": secret.get("secretName", secret.get("name")), "items": secret.get("items")}
        for volume in [*volumes, *projected]
        if (secret := volume.get("secret"))
    ]


def make_item(name: str, key: str, path: str) -> Json:
    """Return one key of a Secret that is mounted as a file."""
    return {"name": name, "items": [{"key": key, "path": path}]}


def test_existing_secrets_are_used_and_no_secret_is_created() -> None:
    tls = {"enabled": True, "caSecret": "ca", "caSecretKey": "c"}
    login = {"existingSecret": "mine", "existingSecretPasswordKey": "pw"}
    documents = render(
        {
            "valkey": {"enabled": False},
            "externalRedis": {"host": "r", "tls": tls} | login,
            "auth": {
                "existingSecret": "tokens",
                "existingSecretKey": "t",
                "writerSalt": {"enabled": True, "existingSecret": "salt"},
            },
            "flusher": {"auth": {"existingSecret": "archive"}},
            "tests": {"existingSecret": "test"},
        }
    )
    assert of_kind(documents, "Secret") == []
    shared = [
        make_item("mine", "pw", "password"),
        make_item("ca", "c", "ca.crt"),
        make_item("archive", "secret", "secret"),
    ]
    assert mounted_secrets(documents, "StatefulSet", "busyapi-flusher") == shared
    assert mounted_secrets(documents, "Deployment", "busyapi") == [
        *shared,
        make_item("salt", "salt", "salt"),
        make_item("tokens", "t", "existing.toml"),
        make_item("test", "credential.toml", "helm-test.toml"),
    ]


def test_valkey_uses_an_existing_secret() -> None:
    documents = render(
        {"valkey": {"auth": {"existingSecret": "mine"}}, "tests": {"existingSecret": "test"}}
    )
    (secret,) = of_kind(documents, "Secret")
    assert secret["metadata"]["name"] == "busyapi-archive"
    for kind, name, key, path in (
        ("StatefulSet", "busyapi-valkey", "users.acl", "users.acl"),
        ("StatefulSet", "busyapi-flusher", "flusher-password", "password"),
        ("Deployment", "busyapi", "api-password", "password"),
    ):
        assert mounted_secrets(documents, kind, name)[0] == make_item("mine", key, path)


def test_api_and_flusher_share_one_secret_that_is_kept(tmp_path: Path) -> None:
    chart = with_lookup(tmp_path, "Secret", '(dict "data" (dict "secret" "b2xk"))')
    documents = render(chart=chart)
    assert find_object(documents, "Secret", "busyapi-archive")["data"] == {"secret": "b2xk"}
    for kind, name in (("StatefulSet", "busyapi-flusher"), ("Deployment", "busyapi")):
        assert make_item("busyapi-archive", "secret", "secret") in mounted_secrets(
            documents, kind, name
        )
    generated = find_object(render(), "Secret", "busyapi-archive")["data"]["secret"]
    assert len(b64decode(generated)) == 32


KEPT = {"busyapi-writer-salt", "busyapi-valkey-tls"}
"""Usages on kept volumes, and programs that trust the CA, depend on these. All others are made
again, on both sides, from values or at random: docs/how-to/uninstall.md says why for each."""


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_only_a_secret_that_something_kept_depends_on_outlives_an_uninstall(mode: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "uninstall.md").read_text()
    for document in render(values_of(mode)):
        annotations = document["metadata"].get("annotations") or {}
        name = document["metadata"]["name"]
        is_kept = annotations.get("helm.sh/resource-policy") == "keep"
        assert is_kept == (document["kind"] == "Secret" and name in KEPT), name
        if document["kind"] == "Secret":
            (row,) = (line for line in page.splitlines() if f"`{name}`" in line.partition(" | ")[0])
            assert ("| stays |" in row) == is_kept


def test_without_the_old_secrets_both_ends_of_each_connection_get_new_ones() -> None:
    """After an uninstall nothing is looked up, and Valkey's volume holds no password."""
    before, after = render(), render(upgrade=True)
    for name, keys in (
        ("busyapi-valkey", ("api-password", "flusher-password")),
        ("busyapi-archive", ("secret",)),
        ("busyapi-test", ("token",)),
    ):
        old, new = read_secret(before, name), read_secret(after, name)
        for key in keys:
            assert old[key] != new[key]
            readers = [pod for _, pod in pods(after) if f"'{name}'" in str(pod)]
            assert readers
    data = read_secret(after, "busyapi-valkey")
    for role in ("api", "flusher"):
        assert hashlib.sha256(data[f"{role}-password"].encode()).hexdigest() in data["users.acl"]
    spec = find_object(after, "StatefulSet", "busyapi-valkey")["spec"]["template"]["spec"]
    configuration = find_object(after, "ConfigMap", "busyapi-valkey")["data"]["valkey.conf"]
    (line,) = (line for line in configuration.splitlines() if line.startswith("aclfile "))
    folder = str(Path(line.split()[1]).parent)
    (mount,) = (m for m in spec["containers"][0]["volumeMounts"] if m["mountPath"] == folder)
    (volume,) = (volume for volume in spec["volumes"] if volume["name"] == mount["name"])
    sources = volume["projected"]["sources"]
    assert [s["secret"]["name"] for s in sources if "secret" in s] == ["busyapi-valkey"]
