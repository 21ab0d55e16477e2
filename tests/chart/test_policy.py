"""Every complaint of checkov about any mode has a reason in policy.yaml."""

from copy import deepcopy

import pytest
import yaml

from testkit.chart.policy import SKIPS, Complaint, find_unused_skips, run_checkov, without_skip
from testkit.chart.rendering import MODES, Json, find_object, mode_name, render, values_of

BAD = "bad"
# Objects and containers that a user adds are not the chart's.
ADDED = ("extraContainers", "extraObjects")


def remove_additions(values: Json) -> Json:
    sections = [values, *(section for section in values.values() if isinstance(section, dict))]
    for section in sections:
        for name in ADDED:
            section.pop(name, None)
    return values


def make_bad_documents() -> list[Json]:
    """Return the API with insecure settings."""
    deployment = deepcopy(find_object(render(), "Deployment", "busyapi"))
    deployment["metadata"]["name"] = "bad"
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["securityContext"] = {"privileged": True}
    del container["livenessProbe"]
    return [deployment]


@pytest.fixture(scope="module")
def all_complaints(tmp_path_factory: pytest.TempPathFactory) -> list[Complaint]:
    """Run checkov once over all modes, because its start takes longer than its checks."""
    folder = tmp_path_factory.mktemp("policy")
    for mode in MODES:
        documents = render(remove_additions(values_of(mode)))
        (folder / f"{mode_name(mode)}.yaml").write_text(yaml.safe_dump_all(documents))
    (folder / f"{BAD}.yaml").write_text(yaml.safe_dump_all(make_bad_documents()))
    return run_checkov(folder)


def test_every_complaint_has_a_reason(all_complaints: list[Complaint]) -> None:
    assert without_skip(complaint for complaint in all_complaints if complaint.mode != BAD) == []


def test_every_reason_belongs_to_a_complaint(all_complaints: list[Complaint]) -> None:
    assert (
        find_unused_skips(complaint for complaint in all_complaints if complaint.mode != BAD) == []
    )
    assert find_unused_skips(
        complaint for complaint in all_complaints if complaint.check != "CKV_K8S_43"
    ) == ["CKV_K8S_43"]
    assert all(len(skip["why"]) > 20 for skip in SKIPS)


def test_insecure_object_is_found(all_complaints: list[Complaint]) -> None:
    checks = {
        complaint.check for complaint in without_skip(all_complaints) if complaint.mode == BAD
    }
    # Privileged; liveness probe; capabilities dropped; read-only root.
    assert checks >= {"CKV_K8S_16", "CKV_K8S_8", "CKV_K8S_28", "CKV_K8S_22"}
