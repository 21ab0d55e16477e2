"""Refused requests for the audit trail: which are sampled, and which are only counted."""

import pytest

from busyapi.api.refusal_sampler import MAX_ENTRIES, RefusalSampler
from testkit.audit import make_entry


@pytest.mark.parametrize("flood", [("", "device-7"), ("device-7", "")])
def test_refusals_with_and_without_a_credential_do_not_hide_each_other(
    flood: tuple[str, str],
) -> None:
    many, other = flood
    sampler = RefusalSampler()
    for number in range(3 * MAX_ENTRIES):
        sampler.add(number, make_entry(1, name=many), None)
    sampler.add("other", make_entry(1, name=other), 7)
    entries, dropped = sampler.take()
    assert [entry.name for entry in entries] == [many] * MAX_ENTRIES + [other]
    assert dropped == 2 * MAX_ENTRIES


def test_refusals_of_one_source_are_one_entry_with_their_number_and_ids() -> None:
    sampler = RefusalSampler()
    for usage in (9, 4, 12):
        sampler.add("source", make_entry(usage), usage)
    ((entry,), dropped) = sampler.take()
    assert (entry.count, entry.resource, entry.last, dropped) == (3, "usage/4", "usage/12", 0)
    assert sampler.take() == ([], 0)
