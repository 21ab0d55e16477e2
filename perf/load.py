"""The request of a load, and the script with which wrk posts it."""

import json
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path

SINGLE_BODY = (
    '{"patientId":"100","timestamp":"Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",'
    '"medication":"Albuterol"}'
)
"""The usage of the README's curl line."""

BATCH = 100


def _batch_body() -> str:
    usages = [
        {
            "patientId": str(100 + n),
            "timestamp": f"2016-11-01T09:{n // 60:02d}:{n % 60:02d}Z",
            "medication": "Albuterol",
        }
        for n in range(BATCH)
    ]
    return json.dumps(usages, separators=(",", ":"))


FORWARDED = Path(__file__).with_name("forwarded.lua")


@dataclass(frozen=True)
class Load:
    """One request. A run repeats it, so that wrk runs no Lua for each request."""

    name: str
    path: str
    usages: int
    """The usages in the request."""
    body: str
    status: int = HTTPStatus.CREATED
    """The status of an accepted request."""
    authorization: str = ""
    """The value of its Authorization header."""
    is_forwarded: bool = False
    """Whether it has a proxy's headers, with other values in each request."""
    patients: int = 1
    """The patients of whom a forwarded request chooses one."""

    @property
    def headers(self) -> dict[str, str]:
        """Return its headers."""
        headers = {"Content-Type": "application/json"}
        return headers | ({"Authorization": self.authorization} if self.authorization else {})

    def script(self) -> str:
        """Return the Lua that sets up the request."""
        forwarded = f"PATIENTS = {self.patients}\n{FORWARDED.read_text()}"
        return (
            'wrk.method = "POST"\n'
            + "".join(
                f'wrk.headers["{name}"] = "{value}"\n' for name, value in self.headers.items()
            )
            + f"wrk.body = [==[{self.body}]==]\n"
            + (forwarded if self.is_forwarded else "")
        )

    def write_script(self, folder: Path) -> Path:
        """Write the script for wrk, and return its path."""
        path = folder / f"{self.name}.lua"
        path.write_text(self.script())
        return path


SINGLE = Load("single", "/api/usages", 1, SINGLE_BODY)
FORWARDED_SINGLE = replace(SINGLE, name="forwarded", is_forwarded=True)
DEPLOYED = replace(FORWARDED_SINGLE, name="deployed", patients=100_000)
BATCHES = Load(f"batch-{BATCH}", "/api/usages/batch", BATCH, _batch_body())
