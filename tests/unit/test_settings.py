"""Settings: valid values are accepted; an error names the setting and never its value."""

from dataclasses import fields

import pytest
from structlog.testing import capture_logs

from busyapi.errors import ConfigError
from busyapi.renamed_settings import RENAMED, warn_of_old_names
from busyapi.settings import Settings

NAMES = {field.metadata["name"]: field for field in fields(Settings)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "zq"),
        ("PORT", "3000.5"),
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("BUSYAPI_METRICS_PORT", "tcp://10.0.0.1:9090"),
        ("BUSYAPI_PARTITIONS", "0"),
        ("BUSYAPI_DURABILITY", "FSYNC"),
        ("BUSYAPI_COMMIT_DEADLINE", "0"),
        ("BUSYAPI_REQUEST_DEADLINE", "301"),
        ("BUSYAPI_STOP_TIMEOUT", "inf"),
        ("BUSYAPI_RATE_LIMIT", "nan"),
        ("BUSYAPI_RETENTION_DAYS", "-1"),
    ],
)
def test_an_error_names_the_setting_and_the_allowed_values(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} must be ") as error:
        Settings.from_environment({name: value})
    assert value not in str(error.value) or value in {"0", "-1"}


def test_missing_and_empty_values_are_the_defaults() -> None:
    assert Settings.from_environment({}) == Settings()
    assert Settings.from_environment(dict.fromkeys(NAMES, "")) == Settings()


@pytest.mark.parametrize("name", NAMES)
def test_every_default_can_also_be_set(name: str) -> None:
    environment = {name: str(NAMES[name].default)}
    assert Settings.from_environment(environment) == Settings()


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_reason_and_a_number_its_unit(name: str) -> None:
    setting = NAMES[name]
    assert setting.metadata["reason"]
    assert type(setting.default) is str or setting.metadata["unit"]


def test_old_name_of_a_setting_is_accepted_with_a_warning() -> None:
    environment = {"BUSYAPI_FAST_LANE": "off"}
    assert Settings.from_environment(environment) == Settings(fast_path="off")
    with capture_logs() as logs:
        warn_of_old_names(environment)
    assert logs == [
        {
            "event": "setting_renamed",
            "log_level": "warning",
            "setting": "BUSYAPI_FAST_LANE",
            "use": "BUSYAPI_FAST_PATH",
            "ignored": False,
        }
    ]


def test_new_name_wins_over_the_old_one_and_the_warning_says_so() -> None:
    environment = {"BUSYAPI_FAST_LANE": "off", "BUSYAPI_FAST_PATH": "on"}
    assert Settings.from_environment(environment).fast_path == "on"
    with capture_logs() as logs:
        warn_of_old_names(environment)
    assert [entry["ignored"] for entry in logs] == [True]


def test_value_under_an_old_name_is_checked() -> None:
    with pytest.raises(ConfigError, match="BUSYAPI_FAST_PATH must be one of"):
        Settings.from_environment({"BUSYAPI_FAST_LANE": "fast"})


def test_renamed_settings_exist_and_their_old_names_do_not() -> None:
    assert set(RENAMED.values()) <= NAMES.keys()
    assert not RENAMED.keys() & NAMES.keys()


def test_nothing_is_logged_without_an_old_name() -> None:
    with capture_logs() as logs:
        warn_of_old_names({"BUSYAPI_FAST_LANE": "", "BUSYAPI_FAST_PATH": "off"})
    assert logs == []
