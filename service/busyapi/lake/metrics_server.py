"""The port of the metrics, served by a thread of its own: a turn may wait for half an hour."""

import asyncio
from threading import Thread

from busyapi.lake.progress import ProgressReader
from busyapi.settings import Settings
from busyapi.telemetry.lake_metrics import LakeMetrics
from busyapi.web.budget import ReceiveBudget
from busyapi.web.listener import open_listener
from busyapi.web.metrics_port import make_metrics_port
from busyapi.web.protocol import ConnectionLimits


def serve_metrics(progress: ProgressReader, settings: Settings) -> None:
    """Serve the metrics until the process ends.

    Raises:
        PortUnavailable: the port cannot be opened.
    """
    number, host = settings.lake_metrics_port, settings.host
    sock = open_listener(number, "BUSYAPI_LAKE_METRICS_PORT", host=host, shared=False)
    budget = ReceiveBudget(settings.receiving_bytes)
    limits = ConnectionLimits(settings.request_deadline, settings.max_header, budget)
    metrics = LakeMetrics(progress.read)

    async def serve() -> None:
        port = make_metrics_port(metrics.choose_renderer, limits)
        await port.open(sock)
        await asyncio.Event().wait()

    Thread(target=asyncio.run, args=(serve(),), name="metrics", daemon=True).start()
