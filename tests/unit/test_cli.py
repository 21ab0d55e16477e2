"""The command line where an option is meant as a setting."""

import pytest

from busyapi.cli import main


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("api --port 3000", "PORT"),
        ("api --port=3000", "PORT"),
        ("api --metrics-port 9090", "BUSYAPI_METRICS_PORT"),
        ("flusher --partition 0 --port 9100", "BUSYAPI_FLUSHER_PORT"),
        ("flusher --partition 0 --archive-dir /srv", "BUSYAPI_ARCHIVE_DIR"),
        ("flusher --partition 0 --redis-url redis://one", "BUSYAPI_REDIS_URL"),
    ],
)
def test_option_that_is_a_setting_names_the_variable(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith(f": set the environment variable {name}\n")


def test_other_unknown_option_names_the_page_of_settings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command, end in (
        ("api --verbose", "Settings are environment variables: see docs/reference/settings.md\n"),
        ("sizing --verbose", "unrecognized arguments: --verbose\n"),
    ):
        with pytest.raises(SystemExit):
            main(command.split())
        assert capsys.readouterr().err.endswith(end)


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ("api", ("There is no --port", "PORT=", "BUSYAPI_METRICS_PORT=")),
        ("flusher", ("BUSYAPI_FLUSHER_PORT=", "BUSYAPI_ARCHIVE_DIR=")),
    ],
)
def test_help_of_a_role_shows_its_ports_as_environment_variables(
    role: str, names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([role, "--help"])
    shown = capsys.readouterr().out
    assert "environment variables" in shown
    for name in names:
        assert name in shown
