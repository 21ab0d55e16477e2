"""Keys and tokens. An issuer's keys take a second, so all tests share one."""

import pytest

from testkit.jwt_issuer import Issuer


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return Issuer()
