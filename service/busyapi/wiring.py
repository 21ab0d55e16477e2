"""What both roles are put together with."""

from busyapi.settings import Settings
from busyapi.stream.endpoint import Endpoint, endpoint


def redis(settings: Settings) -> Endpoint:
    """Read where Redis is."""
    return endpoint(
        settings.redis_url,
        username=settings.redis_username,
        password=settings.redis_password,
        password_file=settings.redis_password_file,
        ca_file=settings.redis_ca_file,
        prefix=settings.key_prefix,
        installation=settings.installation,
    )
