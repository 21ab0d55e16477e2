"""Let pods reach the ingress controller of this machine, which listens on 127.0.0.1 only."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from testkit.threads import LoopThread

CHUNK_BYTES = 1 << 16


@contextmanager
def relay(address: str, target: int) -> Iterator[int]:
    """Pass connections to a free port of this address on to a port of 127.0.0.1; yield the port."""
    loop = LoopThread("relay")
    loop.start()
    servers: list[asyncio.Server] = []

    async def listen() -> None:
        servers.append(await asyncio.start_server(accept, address, 0))

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside_reader, inside_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(copy(reader, inside_writer), copy(inside_reader, writer))

    async def close() -> None:
        servers[0].close()

    try:
        loop.run_step(listen)
        yield int(servers[0].sockets[0].getsockname()[1])
        loop.run_step(close)
    finally:
        loop.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until one side ends."""
    with suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()
