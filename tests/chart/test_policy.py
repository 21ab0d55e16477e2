"""Checkov has nothing to say of any mode that policy.yaml does not answer."""

from copy import deepcopy

import pytest
import yaml

from testkit.chart.policy import SKIPS, Complaint, complaints, unanswered, unused
from testkit.chart.rendering import MODES, Json, mode_name, one, render, values_of

BAD = "bad"
# What a user adds is the user's.
ADDED = ("extraContainers", "extraObjects")


def without_additions(values: Json) -> Json:
    sections = [values, *(each for each in values.values() if isinstance(each, dict))]
    for section in sections:
        for name in ADDED:
            section.pop(name, None)
    return values


def bad() -> list[Json]:
    """The API as nobody should run it."""
    deployment = deepcopy(one(render(), "Deployment", "busyapi"))
    deployment["metadata"]["name"] = "bad"
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["securityContext"] = {"privileged": True}
    del container["livenessProbe"]
    return [deployment]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Complaint]:
    """One run over all modes: it takes longer to start than to look."""
    folder = tmp_path_factory.mktemp("policy")
    for mode in MODES:
        documents = render(without_additions(values_of(mode)))
        (folder / f"{mode_name(mode)}.yaml").write_text(yaml.safe_dump_all(documents))
    (folder / f"{BAD}.yaml").write_text(yaml.safe_dump_all(bad()))
    return complaints(folder)


def test_every_complaint_is_answered(found: list[Complaint]) -> None:
    assert unanswered(each for each in found if each.mode != BAD) == []


def test_every_answer_is_to_a_complaint(found: list[Complaint]) -> None:
    assert unused(each for each in found if each.mode != BAD) == []
    assert unused(each for each in found if each.check != "CKV_K8S_43") == ["CKV_K8S_43"]
    assert all(len(skip["why"]) > 20 for skip in SKIPS)


def test_a_bad_object_is_complained_of(found: list[Complaint]) -> None:
    checks = {each.check for each in unanswered(found) if each.mode == BAD}
    # Privileged; liveness probe; capabilities dropped; read-only root.
    assert checks >= {"CKV_K8S_16", "CKV_K8S_8", "CKV_K8S_28", "CKV_K8S_22"}
