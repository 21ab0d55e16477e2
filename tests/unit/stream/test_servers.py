"""Several servers in BUSYAPI_REDIS_URL, and what is wrong with some values."""

import pytest

from busyapi.errors import ConfigError, RedisUnavailable
from busyapi.settings import Settings
from busyapi.stream.redis_url import parse_redis_url
from busyapi.stream.servers import RedisServers, parse_servers
from busyapi.wiring.redis import make_servers

TWO = "0-1,4=redis://one 2,3=redis+sentinel://a,b/two"


def parse(text: str) -> RedisServers:
    return parse_servers(text, parse_redis_url)


def test_one_url_has_all_partitions_and_its_flusher_of_partition_0_decides() -> None:
    servers = parse("redis://:pass=word@one")
    for partition in (0, 7, 10**12):
        endpoint = servers.find(partition)
        assert endpoint.hosts == (("one", 6379),)
        assert endpoint.first_partition == 0
        assert servers.list_others(partition) == []
    assert servers.find(7).key_names(7).is_decider is False


def test_each_partition_is_on_the_server_that_names_it() -> None:
    servers = parse(TWO)
    places = [servers.find(partition) for partition in range(5)]
    assert [place.mode for place in places] == ["standalone"] * 2 + ["sentinel"] * 2 + [
        "standalone"
    ]
    assert places[0] is places[1] is places[4]
    assert places[2] is places[3]
    assert servers.list_others(4) == [places[2]]
    assert servers.list_others(2) == [places[0]]
    deciders = [n for n in range(5) if places[n].key_names(n).is_decider]
    assert deciders == [0, 2]
    assert places[3].key_names(3).replicas == "busyapi:{2}:replicas"
    assert places[2].decider_keys.partition == 2


def test_partition_without_a_server_is_unavailable_and_needed_ones_are_checked_first() -> None:
    with pytest.raises(RedisUnavailable, match="names no server for partition 5"):
        parse(TWO).find(5)
    make_servers(Settings(redis_url=TWO, partitions=5))
    with pytest.raises(ConfigError, match="names no server for partition 5: add it"):
        make_servers(Settings(redis_url=TWO, partitions=6))


def test_servers_with_the_same_sentinels_and_other_names_are_two() -> None:
    servers = parse("0=redis+sentinel://a,b/one 1=redis+sentinel://a,b/two")
    assert [servers.find(number).service for number in (0, 1)] == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0=redis://one 1=redis://one", "names one:6379 twice"),
        ("0=redis+cluster://one,two 1=redis+cluster://two,three", "names two:6379 twice"),
        ("0-2=redis://one 2-3=redis://two", "names two servers for partition 2"),
        ("redis://one redis://two", "each needs its partitions: 0-1="),
        ("0=redis://one redis://two", "each needs its partitions: 0-1="),
        ("0=redis://one,1=redis://two", "separate several servers by blanks"),
        ("1-0=redis://one", "1-0 is not a list of partitions"),
        ("0--1=redis://one", "0--1 is not a list"),
        ("0,=redis://one", "0, is not a list"),
        ("0-99999=redis://one", "0-99999 is not a list"),
        ("0=http://one", "must look like redis://host:6379"),
    ],
)
def test_error_about_wrong_servers_does_not_quote_a_password(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text)
    with pytest.raises(ConfigError) as caught:
        parse(text.replace("://", "://user:hush@"))
    assert "hush" not in str(caught.value)
