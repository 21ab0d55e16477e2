"""Builds the Redis endpoint that both roles use."""

from dataclasses import replace

from busyapi.settings import Settings
from busyapi.stream.endpoint import Endpoint, parse_redis_url
from busyapi.stream.entry import STAMPED_VERSION, VERSION


def make_endpoint(settings: Settings) -> Endpoint:
    """Return the endpoint that the settings describe."""
    endpoint = parse_redis_url(
        settings.redis_url,
        username=settings.redis_username,
        password=settings.redis_password,
        password_file=settings.redis_password_file,
        ca_file=settings.redis_ca_file,
        prefix=settings.key_prefix,
        installation=settings.installation,
    )
    version = STAMPED_VERSION if settings.writer_salt_file else VERSION
    return replace(endpoint, entry_version=int(version))
