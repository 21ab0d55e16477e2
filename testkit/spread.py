"""An installation whose partitions are spread over several servers."""

from testkit.processes import Store


class Spread:
    """Several stores, each with its partitions, such as `{"0-1": first, "2-3": second}`."""

    def __init__(self, stores: dict[str, Store]) -> None:
        self.stores = stores

    @property
    def url(self) -> str:
        """The value of BUSYAPI_REDIS_URL."""
        urls = {name: store.settings()["BUSYAPI_REDIS_URL"] for name, store in self.stores.items()}
        return " ".join(f"{partitions}={url}" for partitions, url in urls.items())

    def settings(self) -> dict[str, str]:
        """Return the settings with which busyapi connects to all."""
        first = next(iter(self.stores.values()))
        return first.settings() | {"BUSYAPI_REDIS_URL": self.url}
