"""The logins and certificates with which pods connect to an external Redis and its Sentinels."""

import pytest

from busyapi.wiring.redis import make_servers
from testkit.chart.rendering import (
    CHART,
    Json,
    environment,
    find_object,
    pod_spec,
    render,
    render_notes,
    settings_of,
    values_of,
)
from tests.chart.test_secrets import read_secret
from tests.chart.test_valkey_tls import API, FLUSHER, mounted_keys

ROLES = (API, FLUSHER)
SENTINEL_TLS = values_of(CHART / "ci" / "external-redis-sentinel-tls-values.yaml")
MANAGED = values_of(CHART / "ci" / "external-redis-managed-values.yaml")
SENTINEL_FOLDER, TLS_FOLDER = "/etc/busyapi/redis-sentinel", "/etc/busyapi/redis-tls"


SPREAD = values_of(CHART / "ci" / "external-redis-spread-values.yaml")


def with_sentinel(**sentinel: str) -> Json:
    return SENTINEL_TLS | {"externalRedis": SENTINEL_TLS["externalRedis"] | {"sentinel": sentinel}}


@pytest.mark.parametrize("role", ROLES)
def test_sentinels_have_a_login_of_their_own(role: tuple[str, str]) -> None:
    documents = render(SENTINEL_TLS)
    settings = settings_of(documents, *role)
    assert settings.redis_sentinel_username == "busyapi"
    assert settings.redis_sentinel_password_file == f"{SENTINEL_FOLDER}/password"
    files = mounted_keys(documents, role, SENTINEL_FOLDER)
    assert files == {"password": "busyapi-redis/sentinel-password"}
    assert mounted_keys(documents, role, "/etc/busyapi/redis") == {
        "password": "redis-login/redis-password"
    }
    assert read_secret(documents, "busyapi-redis") == {"sentinel-password": "not-a-real-password"}


@pytest.mark.parametrize("role", ROLES)
def test_partitions_are_on_the_servers_that_are_named(role: tuple[str, str]) -> None:
    servers = make_servers(settings_of(render(SPREAD), *role))
    places = [servers.find(partition) for partition in range(4)]
    assert [place.hosts[0][0] for place in places] == ["one-0.redis"] * 2 + ["two-0.redis"] * 2
    assert [place.service for place in places] == ["mymaster"] * 2 + ["second"] * 2
    standalone: Json = {
        "servers": [
            {"partitions": "0,2-3", "host": "fd00::6", "port": 7000},
            {"partitions": 1, "host": "two"},
        ],
        "tls": {"enabled": True},
    }
    documents = render(SPREAD | {"config": {"partitions": 4}, "externalRedis": standalone})
    url = settings_of(documents, *role).redis_url
    assert url == "0,2-3=rediss://[fd00::6]:7000 1=rediss://two:6379"


@pytest.mark.parametrize("role", ROLES)
def test_password_of_the_sentinels_is_in_the_secret_that_is_named(role: tuple[str, str]) -> None:
    documents = render(with_sentinel(existingSecret="mine", existingSecretPasswordKey="key"))
    assert mounted_keys(documents, role, SENTINEL_FOLDER) == {"password": "mine/key"}
    assert settings_of(documents, *role).redis_sentinel_username == ""
    with pytest.raises(ValueError, match="not enough values"):
        find_object(documents, "Secret", "busyapi-redis")


@pytest.mark.parametrize("role", ROLES)
def test_without_their_password_nothing_is_mounted(role: tuple[str, str]) -> None:
    documents = render(with_sentinel())
    assert mounted_keys(documents, role, SENTINEL_FOLDER) == {}
    names = environment(pod_spec(documents, *role)["containers"][0])
    assert not {name for name in names if "SENTINEL" in name}


@pytest.mark.parametrize("role", ROLES)
def test_client_certificate_is_mounted_with_its_key(role: tuple[str, str]) -> None:
    documents = render(MANAGED)
    assert mounted_keys(documents, role, TLS_FOLDER) == {
        "tls.crt": "busyapi-redis-tls/tls.crt",
        "tls.key": "busyapi-redis-tls/tls.key",
    }
    settings = settings_of(documents, *role)
    assert settings.redis_cert_file == f"{TLS_FOLDER}/tls.crt"
    assert settings.redis_key_file == f"{TLS_FOLDER}/tls.key"
    assert settings.redis_ca_file == "/etc/busyapi/redis-ca/ca.crt"
    assert mounted_keys(render(), role, TLS_FOLDER) == {}


@pytest.mark.parametrize("role", ROLES)
def test_trust_reaches_both_roles_and_the_notes_warn_of_it(role: tuple[str, str]) -> None:
    assert settings_of(render(MANAGED), *role).redis_trust == "appendfsync"
    assert settings_of(render(), *role).redis_trust == ""
    warning = "WARNING: config.redisTrust is"
    assert f"{warning} appendfsync" in render_notes(MANAGED)
    assert warning not in render_notes()
