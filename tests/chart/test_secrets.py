"""No secret is in plain text anywhere but in a Secret; passwords come from where they should."""

import hashlib
import re
from base64 import b64decode
from pathlib import Path

import pytest

from testkit.chart.rendering import (
    MODES,
    Json,
    mode_name,
    of_kind,
    one,
    pods,
    render,
    strings,
    values_of,
)

PASSWORD = "correct-horse-battery-staple"
TOKENS = "write,read a-token-nobody-guesses\n"
GIVEN: Json = {
    "valkey": {"enabled": False},
    "externalRedis": {"host": "r.example.org", "username": "u", "password": PASSWORD},
    "auth": {"tokens": TOKENS},
}
SECRETS = (PASSWORD, TOKENS.split()[1])


def leaks(documents: list[Json], secrets: tuple[str, ...]) -> list[str]:
    """The objects, but for Secrets, that hold one of them, plain or in base64."""
    return [
        f"{each['kind']}/{each['metadata']['name']}"
        for each in documents
        if each["kind"] != "Secret"
        for text in strings(each)
        if any(secret in text or secret in decoded(text) for secret in secrets)
    ]


def decoded(text: str) -> str:
    """What it is in base64, if it is."""
    try:
        return b64decode(text, validate=True).decode()
    except ValueError:
        return ""


def secret(documents: list[Json], name: str) -> dict[str, str]:
    data = one(documents, "Secret", name)["data"]
    return {each: b64decode(value).decode() for each, value in data.items()}


def test_what_is_given_is_in_a_secret_and_nowhere_else() -> None:
    documents = render(GIVEN)
    assert leaks(documents, SECRETS) == []
    assert secret(documents, "busyapi-redis") == {"redis-password": PASSWORD}
    assert secret(documents, "busyapi-tokens") == {"tokens": TOKENS}


@pytest.mark.parametrize("where", [{"extraEnv": [{"name": "P", "value": PASSWORD}]}, {}])
def test_a_leak_is_found(where: Json) -> None:
    annotated = {"podAnnotations": {"p": "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ=="}}
    assert leaks(render(GIVEN | (where or annotated)), SECRETS) == ["Deployment/busyapi"]


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_no_generated_password_is_outside_its_secret(mode: Path) -> None:
    documents = render(values_of(mode))
    made = [
        value
        for each in of_kind(documents, "Secret")
        for value in (each.get("data") or {}).values()
    ]
    lines = {line for value in made for line in b64decode(value).decode().splitlines()}
    assert leaks(documents, tuple(line for line in lines if len(line) > 7)) == []


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_no_password_is_in_the_environment(mode: Path) -> None:
    for name, pod in pods(render(values_of(mode))):
        for container in pod["spec"]["containers"]:
            for each in container.get("env") or []:
                assert "secretKeyRef" not in (each.get("valueFrom") or {}), name


def test_valkey_s_passwords_are_random_and_its_users_have_their_digests() -> None:
    made = secret(render(), "busyapi-valkey")
    users = dict(line.split(None, 2)[1:] for line in made["users.acl"].splitlines())
    assert users.keys() == {"default", "probe", "api", "flusher"}
    # It may do everything and nobody can be it: Valkey replays its log as this user.
    assert users["default"].split()[0] == "off"
    assert "on" not in users["default"].split()
    assert users["probe"].endswith("-@all +ping")
    assert made["api-password"] != made["flusher-password"]
    for role in ("api", "flusher"):
        password = made[f"{role}-password"]
        assert len(password) >= 32
        assert f"#{hashlib.sha256(password.encode()).hexdigest()} " in users[role]
        assert "~busyapi:* " in users[role]
        assert "-@all" in users[role]
        assert password not in made["users.acl"]


def test_no_role_may_do_what_would_lose_data() -> None:
    _, acl = secret(render(), "busyapi-valkey")["users.acl"].split("\n", 1)
    dangerous = r"\+(@|flush|keys|del\b|config\|set|shutdown|replicaof|acl|debug|eval\b)"
    assert not re.search(dangerous, acl)
    assert re.search(dangerous, acl.replace("+hdel", "+flushall"))


def of(documents: list[Json], kind: str, name: str) -> list[Json]:
    """The Secrets that a workload's pods mount, projected ones too."""
    volumes = one(documents, kind, name)["spec"]["template"]["spec"]["volumes"]
    projected = [each for v in volumes for each in (v.get("projected") or {}).get("sources", [])]
    return [
        {"name": secret.get("secretName", secret.get("name")), "items": secret.get("items")}
        for each in [*volumes, *projected]
        if (secret := each.get("secret"))
    ]


def item(name: str, key: str, path: str) -> Json:
    """One key of a Secret, mounted as a file."""
    return {"name": name, "items": [{"key": key, "path": path}]}


def test_existing_secrets_are_used_and_none_is_made() -> None:
    tls = {"enabled": True, "caSecret": "ca", "caSecretKey": "c"}
    login = {"existingSecret": "mine", "existingSecretPasswordKey": "pw"}
    documents = render(
        {
            "valkey": {"enabled": False},
            "externalRedis": {"host": "r", "tls": tls} | login,
            "auth": {"existingSecret": "tokens", "existingSecretKey": "t"},
        }
    )
    assert of_kind(documents, "Secret") == []
    redis = [item("mine", "pw", "password"), item("ca", "c", "ca.crt")]
    assert of(documents, "StatefulSet", "busyapi-flusher") == redis
    assert of(documents, "Deployment", "busyapi") == [*redis, item("tokens", "t", "tokens")]


def test_valkey_with_an_existing_secret_makes_none() -> None:
    documents = render({"valkey": {"auth": {"existingSecret": "mine"}}})
    assert of_kind(documents, "Secret") == []
    for kind, name, key, path in (
        ("StatefulSet", "busyapi-valkey", "users.acl", "users.acl"),
        ("StatefulSet", "busyapi-flusher", "flusher-password", "password"),
        ("Deployment", "busyapi", "api-password", "password"),
    ):
        assert of(documents, kind, name) == [item("mine", key, path)]


def test_new_tokens_roll_the_api_out_and_nothing_tells_them() -> None:
    def checksum(tokens: str) -> str:
        documents = render({"auth": {"tokens": tokens}})
        template = one(documents, "Deployment", "busyapi")["spec"]["template"]
        found: str = template["metadata"]["annotations"]["checksum/tokens"]
        return found

    assert checksum("read a\n") != checksum("read b\n")
    assert checksum(TOKENS) == hashlib.sha256(TOKENS.encode()).hexdigest()
