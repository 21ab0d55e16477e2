"""A lookup while the reader still reads from a former primary."""

from types import SimpleNamespace
from typing import Any, cast

from busyapi.api.lookup import _find_confirmed
from busyapi.api.usage_finder import UsageFinder
from busyapi.ids import UsageId
from busyapi.stream.reader import PartitionReader
from busyapi.stream.redis_url import parse_redis_url
from testkit.in_process import run_committer
from testkit.proxy import Proxy
from tests.service.test_failover_ids import Chain, chain  # noqa: F401 - a fixture


async def test_usage_of_a_former_primary_is_not_shown_under_the_id_of_another_one(
    chain: Chain,  # noqa: F811 - the fixture
) -> None:
    await chain.replace(with_more=False)
    await chain.seed()
    with Proxy(chain.old.port) as proxy:
        endpoint = parse_redis_url(proxy.url)
        finder = UsageFinder(lambda partition: PartitionReader(endpoint, partition), 1)
        async with (
            run_committer(chain.where, tier="fsync") as unconfirmed,
            run_committer(chain.new_where, tier="replicated") as committer,
        ):
            await unconfirmed.wait_until_ready()
            await committer.wait_until_ready()
            # No replica has it, so this id goes to another usage.
            assert await unconfirmed.post(b'{"lost":1}') == 2
            assert await committer.post(b'{"kept":1}') == 2
            (place,) = [place async for place in finder.find_places(UsageId(2))]
            assert place.usage is not None  # the reader is connected to the former primary
            proxy.target = chain.new.port
            context = SimpleNamespace(
                settings=SimpleNamespace(durability="replicated"),
                finder=finder,
                committers=SimpleNamespace(committers=[committer.committer]),
            )
            usage = await _find_confirmed(cast("Any", context), place)
        await finder.close()
    assert usage is not None
    assert usage.line == b'{"kept":1}'
