"""The scenarios install values-production.yaml, but for what a site must change."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from e2e.pages import find_blocks
from e2e.production import VALUES, make_values
from testkit.chart.rendering import find_object, render

SITE = make_values(
    host="usages.example.test",
    jwt={
        "keys": "https://192.0.2.7:8443/jwks",
        "issuer": "https://192.0.2.7:8443",
        "audience": "busyapi",
    },
    addresses=["192.0.2.7"],
    storage="retain",
    node="node-1",
)
CHANGED = (
    "auth.jwt.",
    "auth.trustedProxies",
    "auth.existingSecret",
    "auth.allowAnonymous",
    "ingress.",
    "networkPolicy.httpFrom",
    "networkPolicy.jwtTo",
    "storageClassCheck.",
    "flusher.persistence.",
    "valkey.persistence.",
    "valkey.nodeSelector.",
    "tests.outside.",
)
"""What the file marks CHANGE, and what this cluster needs: the provider and the host have no public
certificate or name."""


def list_leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield from list_leaves(member, f"{path}.{name}" if path else name)
    else:
        yield path, value


def test_only_values_of_a_site_differ() -> None:
    before, after = (
        dict(list_leaves(values)) for values in (yaml.safe_load(VALUES.read_text()), SITE)
    )
    differing = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert [name for name in sorted(differing) if not name.startswith(CHANGED)] == []
    assert SITE["auth"]["allowAnonymousWrites"] is SITE["auth"]["allowAnonymousReads"] is False


@pytest.mark.chart
def test_the_values_render_with_tls_and_an_autoscaler() -> None:
    documents = render(SITE)
    (tls,) = find_object(documents, "Ingress", "busyapi")["spec"]["tls"]
    assert tls == {"secretName": "usages-tls", "hosts": ["usages.example.test"]}
    assert find_object(documents, "HorizontalPodAutoscaler", "busyapi")["spec"]["minReplicas"] == 3


@pytest.mark.parametrize(
    "mark",
    [
        "restricted-namespace",
        "archive-ca",
        "archive-certificates",
        "archive-certificates-seen",
        "archive-both-cas",
        "archive-new-ca",
        "ingress-certificate",
        "provider-ca",
        "tokens",
        "secrets-now",
    ],
)
def test_each_command_is_on_one_page(mark: str) -> None:
    assert len(find_blocks(mark)) == 1
