"""The salt of the digests of writers: made once and kept, and mounted in API pods only."""

from base64 import b64decode, b64encode
from pathlib import Path

from busyapi.api.stamper import make_stamper
from busyapi.wiring.redis import make_servers
from testkit.chart.lookups import with_lookup
from testkit.chart.rendering import (
    Json,
    find_object,
    object_key_of,
    of_kind,
    pod_spec,
    pods,
    render,
    render_notes,
    settings_of,
)

ON: Json = {"auth": {"writerSalt": {"enabled": True}}}
EXISTING: Json = {"auth": {"writerSalt": {"enabled": True, "existingSecret": "mine"}}}
NAME = "busyapi-writer-salt"


def read_salt(documents: list[Json]) -> bytes:
    return b64decode(find_object(documents, "Secret", NAME)["data"]["salt"])


def test_entries_of_a_default_installation_are_those_that_0_2_0_reads() -> None:
    documents = render()
    assert settings_of(documents).writer_salt_file == ""
    assert make_servers(settings_of(documents)).find(0).entry_version == 1
    assert NAME not in str(documents)
    assert make_servers(settings_of(render(ON))).find(0).entry_version == 2


def test_salt_is_random_and_the_service_accepts_it(tmp_path: Path) -> None:
    salt = read_salt(render(ON))
    assert salt != read_salt(render(ON, upgrade=True))
    (tmp_path / "salt").write_bytes(salt)
    assert make_stamper(str(tmp_path / "salt"))


def test_salt_survives_an_upgrade_and_an_uninstall(tmp_path: Path) -> None:
    old = b64encode(b"an-old-salt").decode()
    chart = with_lookup(tmp_path, "Secret", f'(dict "data" (dict "salt" "{old}"))')
    documents = render(ON, chart=chart, upgrade=True)
    assert read_salt(documents) == b"an-old-salt"
    others = {"commonAnnotations": {"helm.sh/resource-policy": "mine", "owner": "devices"}}
    for values in (ON, ON | others):
        annotations = find_object(render(values), "Secret", NAME)["metadata"]["annotations"]
        assert annotations["helm.sh/resource-policy"] == "keep"


def test_only_api_pods_have_the_salt() -> None:
    for values, secret in ((ON, NAME), (EXISTING, "mine")):
        documents = render(values)
        assert [name for name, pod in pods(documents) if f"'{secret}'" in str(pod)] == [
            "Deployment/busyapi"
        ]
        spec = pod_spec(documents, "Deployment", "busyapi")
        (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "writer-salt")
        item = {"key": "salt", "path": "salt"}
        assert volume["secret"] == {"secretName": secret, "items": [item]}
        (api,) = spec["containers"]
        (mount,) = (mount for mount in api["volumeMounts"] if mount["name"] == "writer-salt")
        assert mount["readOnly"]
        file = Path(mount["mountPath"]) / item["path"]
        assert settings_of(documents).writer_salt_file == str(file)


def test_existing_secret_is_used_and_none_is_created() -> None:
    assert f"Secret/{NAME}" not in {object_key_of(document) for document in render(EXISTING)}
    assert len(of_kind(render(EXISTING), "Secret")) == len(of_kind(render(ON), "Secret")) - 1


def test_notes_say_that_the_secret_is_kept_or_that_reading_of_own_usages_is_off() -> None:
    kept, off = f"The Secret {NAME} is kept too", "- reading of own usages"
    assert kept in render_notes(ON)
    assert off not in render_notes(ON)
    assert kept not in render_notes(EXISTING)
    assert kept not in render_notes()
    assert off in render_notes()
