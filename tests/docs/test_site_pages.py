"""Conversion of Markdown for the forge to pages of the site; `make docs-site` builds them all."""

from pathlib import Path

import pytest

from tools.site_pages import PAGES_OUTSIDE_DOCS, adapt, page_of, source_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("page", "text", "adapted"),
    [
        ("how-to/install.md", "[c](../../charts/busyapi/README.md)", "[c](../reference/chart.md)"),
        ("how-to/install.md", "[a](upgrade.md#b)", "[a](upgrade.md#b)"),
        ("explanation/architecture.md", "[r](README.md#x)", "[r](../index.md#x)"),
        ("explanation/architecture.md", "![p](docs/reference/p.png)", "![p](../reference/p.png)"),
        ("CHANGELOG.md", "[s](docs/reference/settings.md)", "[s](reference/settings.md)"),
        ("how-to/load-test.md", "in [loadtest](../../loadtest/k6).", "in loadtest."),
        ("index.md", "[k](https://example.org/a_(b)) and [h](#here)", None),
        ("index.md", "```sh decides a.py::b\nls\n```", "```sh\nls\n```"),
        (
            "index.md",
            "1. a\n\n   b\n\n       c\n\nd\n   e",
            "1. a\n\n    b\n\n        c\n\nd\n   e",
        ),
        ("index.md", "```text\n1. a\n   b\n```", None),
    ],
)
def test_page_is_adapted(page: str, text: str, adapted: str | None) -> None:
    assert adapt(text, page) == (text if adapted is None else adapted)


def test_every_page_from_elsewhere_exists_and_maps_back_to_its_source() -> None:
    for path, page in PAGES_OUTSIDE_DOCS.items():
        assert (ROOT / path).exists()
        assert (page_of(path), source_of(page)) == (page, path)
