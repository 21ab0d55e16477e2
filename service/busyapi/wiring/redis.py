"""Builds the Redis endpoint that both roles use."""

from busyapi.settings import Settings
from busyapi.stream.endpoint import Endpoint, parse_redis_url


def make_endpoint(settings: Settings) -> Endpoint:
    """Return the endpoint that the settings describe."""
    return parse_redis_url(
        settings.redis_url,
        username=settings.redis_username,
        password=settings.redis_password,
        password_file=settings.redis_password_file,
        ca_file=settings.redis_ca_file,
        prefix=settings.key_prefix,
        installation=settings.installation,
    )
