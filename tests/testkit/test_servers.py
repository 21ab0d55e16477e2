from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from testkit import servers
from testkit.certificates import make_certificates
from testkit.servers import Flavour, Server, find_program


def test_server_is_as_durable_as_the_fsync_tier_asks(any_server: Server) -> None:
    settings = [
        "appendonly",
        "appendfsync",
        "no-appendfsync-on-rewrite",
        "maxmemory-policy",
        "save",
    ]
    assert any_server.client().config_get(*settings) == {
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "maxmemory-policy": "noeviction",
        "save": "",
    }


def test_each_flavour_is_the_server_of_its_name(valkey: Server, redis7: Server) -> None:
    assert valkey.client().info("server")["server_name"] == "valkey"
    assert redis7.client().info("server")["redis_version"].startswith("7.0.")


def test_data_is_there_after_a_kill_and_gone_after_a_wipe(any_server: Server) -> None:
    any_server.client().set("a", "1")
    any_server.kill9()
    any_server.start()
    assert any_server.client().get("a") == "1"
    with pytest.raises(RuntimeError, match="stop it"):
        any_server.wipe()
    assert any_server.stop() == 0
    any_server.wipe()
    any_server.start()
    assert any_server.client().get("a") is None


def test_restart_is_another_server_process_on_the_same_port(any_server: Server) -> None:
    before = any_server.client().info("server")
    any_server.restart()
    after = any_server.client().info("server")
    assert after["run_id"] != before["run_id"]
    assert after["tcp_port"] == before["tcp_port"] == any_server.port


def test_paused_server_answers_when_resumed(valkey: Server) -> None:
    impatient = redis.Redis(port=valkey.port, socket_timeout=0.2, retry=Retry(NoBackoff(), 0))
    valkey.pause()
    with pytest.raises(redis.TimeoutError):
        impatient.ping()
    valkey.resume()
    assert valkey.client().ping()
    impatient.close()


def test_extra_lines_override_the_default_configuration(tmp_path: Path, flavour: Flavour) -> None:
    config = ["appendfsync everysec", "maxmemory 100mb"]
    with Server(tmp_path / "s", flavour, config=config) as server:
        assert server.client().config_get("appendfsync") == {"appendfsync": "everysec"}
        assert server.client().config_get("maxmemory") == {"maxmemory": str(100 << 20)}


def test_password_is_asked_for_and_in_the_settings(tmp_path: Path, flavour: Flavour) -> None:
    with Server(tmp_path / "s", flavour, password="secret") as server:
        assert server.settings()["BUSYAPI_REDIS_PASSWORD"] == "secret"
        assert "secret" not in server.url
        with pytest.raises(redis.AuthenticationError):
            redis.from_url(server.url).ping()


def test_acl_user_may_do_what_the_file_says(tmp_path: Path, flavour: Flavour) -> None:
    acl = ["user default off", "user writer on >secret ~a* +@all"]
    with Server(tmp_path / "s", flavour, username="writer", password="secret", acl=acl) as server:
        assert server.settings()["BUSYAPI_REDIS_USERNAME"] == "writer"
        server.client().set("a", "1")
        with pytest.raises(redis.exceptions.NoPermissionError):
            server.client().set("b", "1")


def test_tls_server_is_trusted_by_its_authority_only(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    with Server(tmp_path / "s", "redis", certificates=certificates) as server:
        assert server.url.startswith("rediss://")
        assert server.settings()["BUSYAPI_REDIS_CA_FILE"] == str(certificates.ca)
        assert server.client().ping()
        with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            redis.from_url(server.url).ping()


def test_valkey_of_the_wheel_says_that_it_has_no_tls(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without TLS"):
        Server(tmp_path / "s", "valkey", certificates=make_certificates(tmp_path))


def test_replica_logs_in_and_starts_with_its_primarys_data(
    tmp_path: Path, flavour: Flavour
) -> None:
    with Server(tmp_path / "primary", flavour, password="secret") as primary:
        primary.client().set("a", "1")
        replica = Server(tmp_path / "replica", flavour, password="secret", replica_of=primary)
        with replica:
            assert replica.client().get("a") == "1"
            replica.restart()
            assert replica.replication()["master_link_status"] == "up"


def test_server_that_cannot_start_says_why(tmp_path: Path, flavour: Flavour) -> None:
    with (
        pytest.raises(RuntimeError, match=r"ended with 1(.|\n)*no-such-directive"),
        Server(tmp_path / "s", flavour, config=["no-such-directive 1"]),
    ):
        pass


def test_missing_redis_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "REDIS", Path("/nowhere/redis-server"))
    with pytest.raises(RuntimeError, match="apt-get install redis-server"):
        find_program("redis")
