"""Sentinels with a password of their own, and servers that ask clients for a certificate."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from busyapi.errors import RedisUnavailable
from busyapi.settings import Settings
from busyapi.stream.endpoint import Endpoint
from busyapi.wiring.redis import make_servers
from testkit.certificates import Certificates, make_certificates
from testkit.checker import Defect
from testkit.in_process import endpoint_of
from testkit.load import Load
from testkit.processes import Stack, Store
from testkit.servers import Flavour, Server
from testkit.topologies import SentinelSet

# The Sentinels log in to each other with the first user. The second has what busyapi needs.
SENTINEL_ACL = (
    "user peers on >of-peers allchannels +@all",
    "user busyapi on >of-sentinels resetchannels -@all +sentinel|get-master-addr-by-name",
    "user default off",
)
LOGIN = {
    "BUSYAPI_REDIS_SENTINEL_USERNAME": "busyapi",
    "BUSYAPI_REDIS_SENTINEL_PASSWORD": "of-sentinels",
}


async def try_connect(endpoint: Endpoint) -> None:
    await (await endpoint.connect(0)).close()


def with_settings(store: Store, **changes: str) -> Endpoint:
    """Return the endpoint of a store with other settings of Redis, named without their prefix."""
    settings = {f"BUSYAPI_REDIS_{name}": value for name, value in changes.items()}
    return make_servers(Settings.from_environment(store.settings() | settings)).find(0)


async def test_sentinels_get_their_own_password_and_not_that_of_redis(
    tmp_path: Path, flavour: Flavour
) -> None:
    file = tmp_path / "password"
    with SentinelSet(
        tmp_path / "sentinels", flavour, password="of-redis", sentinel_password="of-sentinels"
    ) as sentinels:
        await try_connect(endpoint_of(sentinels))
        for wrong in ("", "of-redis"):
            with pytest.raises(RedisUnavailable, match="refuses the user or password") as refused:
                await try_connect(with_settings(sentinels, SENTINEL_PASSWORD=wrong))
            assert "of-" not in str(refused.value)
        # A rotated file is read for the next connection.
        by_file = with_settings(sentinels, SENTINEL_PASSWORD="", SENTINEL_PASSWORD_FILE=str(file))
        with pytest.raises(RedisUnavailable, match="BUSYAPI_REDIS_SENTINEL_PASSWORD_FILE: No such"):
            await try_connect(by_file)
        file.write_text("old\n")
        with pytest.raises(RedisUnavailable, match="refuses the user or password"):
            await try_connect(by_file)
        file.write_text("of-sentinels\n")
        await try_connect(by_file)


async def test_sentinels_user_needs_one_command(tmp_path: Path, flavour: Flavour) -> None:
    with SentinelSet(
        tmp_path / "sentinels",
        flavour,
        password="of-redis",
        sentinel_password="of-peers",
        sentinel_acl=SENTINEL_ACL,
    ) as sentinels:
        login = {name.removeprefix("BUSYAPI_REDIS_"): value for name, value in LOGIN.items()}
        await try_connect(with_settings(sentinels, **login))
        with pytest.raises(RedisUnavailable, match="refuses the user or password"):
            await try_connect(with_settings(sentinels, **login | {"SENTINEL_USERNAME": ""}))


def test_sentinels_with_users_and_client_certificates_end_to_end(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    with SentinelSet(
        tmp_path / "sentinels",
        "redis",
        password="of-redis",
        sentinel_password="of-peers",
        sentinel_acl=SENTINEL_ACL,
        certificates=certificates,
    ) as sentinels:
        assert sentinels.url.startswith("rediss+sentinel://")
        with Stack(tmp_path / "stack", sentinels, settings=LOGIN) as stack:
            with Load(stack.port, connections=2, requests=50) as load:
                load.finish()
            old = sentinels.primary()
            old.kill9()
            sentinels.wait_for_failover(old)
            for process in stack.processes:
                process.wait_until_ready()
            with Load(stack.port, connections=2, requests=50, history=load.history) as load:
                load.finish()
            stack.wait_until_archived()
            verdict = stack.check_history(load.history)
            assert load.history.acknowledged == 100
            assert set(verdict.defects) <= {Defect.MISSING}, verdict


# --- client certificates ----------------------------------------------------------------------


def make_server(folder: Path, certificates: Certificates) -> Server:
    return Server(folder, "redis", certificates=certificates, client_certificates=True)


async def test_server_that_asks_for_a_certificate_gets_one(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    with make_server(tmp_path / "server", certificates) as server:
        await try_connect(endpoint_of(server))
        # A reset of the connection may overtake the server's own words.
        with pytest.raises(RedisUnavailable, match=r"client certificate.*BUSYAPI_REDIS_CERT_FILE"):
            await try_connect(with_settings(server, CERT_FILE="", KEY_FILE=""))


async def test_rotated_certificate_is_used_for_the_next_connection(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    others = make_certificates(make_folder(tmp_path / "others"))
    cert, key = tmp_path / "client.crt", tmp_path / "client.key"
    with make_server(tmp_path / "server", certificates) as server:
        endpoint = with_settings(server, CERT_FILE=str(cert), KEY_FILE=str(key))
        with pytest.raises(RedisUnavailable, match="BUSYAPI_REDIS_CERT_FILE: No such file"):
            await try_connect(endpoint)
        shutil.copy(others.certificate, cert)
        shutil.copy(others.key, key)
        with pytest.raises(RedisUnavailable, match=r"client certificate.*BUSYAPI_REDIS_CERT_FILE"):
            await try_connect(endpoint)
        shutil.copy(certificates.certificate, cert)
        with pytest.raises(RedisUnavailable, match="CERT_FILE: not a certificate with its key"):
            await try_connect(endpoint)
        shutil.copy(certificates.key, key)
        await try_connect(endpoint)


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_processes_reconnect_with_a_rotated_certificate(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    others = make_certificates(make_folder(tmp_path / "others"))
    cert, key = tmp_path / "client.crt", tmp_path / "client.key"
    shutil.copy(certificates.certificate, cert)
    shutil.copy(certificates.key, key)
    with make_server(tmp_path / "server", certificates) as server:
        settings = {"BUSYAPI_REDIS_CERT_FILE": str(cert), "BUSYAPI_REDIS_KEY_FILE": str(key)}
        with Stack(tmp_path / "stack", server, settings=settings) as stack:
            with Load(stack.port, connections=2, requests=20) as load:
                load.finish()
            # Server and clients change to the other authority. No process is restarted.
            both = tmp_path / "both.pem"
            both.write_text(certificates.ca.read_text() + others.ca.read_text())
            server.command("CONFIG", "SET", "tls-ca-cert-file", str(both))
            shutil.copy(others.certificate, cert)
            shutil.copy(others.key, key)
            server.command("CONFIG", "SET", "tls-ca-cert-file", str(others.ca))
            server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            with Load(stack.port, connections=2, requests=20, history=load.history) as load:
                load.finish()
            stack.wait_until_archived()
            verdict = stack.check_history(load.history)
            assert verdict.ok, verdict
            assert verdict.archived == 40


async def test_the_files_of_tls_are_not_used_without_tls(tmp_path: Path, valkey: Server) -> None:
    endpoint = endpoint_of(valkey)
    files = replace(endpoint.tls_files, ca_file=str(tmp_path / "missing"))
    await try_connect(replace(endpoint, tls_files=files))
