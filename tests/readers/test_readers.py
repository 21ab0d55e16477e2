"""Other programs read the archive: each query of docs/reference/readers.md, on real archives.

`make test-later` installs the readers that are small wheels, `make readers` the others too. Without
them their tests are skipped.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from busyapi.archive.compression import compress
from busyapi.archive.format import UsageBatch
from testkit.archive.builder import (
    RECEIVED_MS,
    abandon_writer,
    find_open_segment,
    find_segments,
    join_usages,
    recover_writer,
    render_batches,
)

PAGE = Path(__file__).parents[2] / "docs/reference/readers.md"
PATTERN = "archive/p*/*/usages-*.ndjson.zst"
FOLDER = Path(sys.prefix) / "readers"
"""Holds the packages `wheels`, the environments `chdb`, `spark-3.5` and `spark-4`, and
aircompressor.jar."""
USAGES, PATIENT = 9000, "13"
PACKAGES = {
    "python-zstandard": "zstandard",
    "DuckDB": "duckdb",
    "Polars, eager and lazy": "polars",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "ClickHouse (chDB)": "chdb",
    "DataFusion": "datafusion",
    "Spark 4": "pyspark",
    "Spark 3.5": "pyspark",
    "pyiceberg": "pyiceberg",
    "Polars": "polars",
}
"""The package of each program that the page's tables name."""
ALL_TORN, TORN_IS_ERROR = "reads all complete usages", "error"
TIMES = [
    '"Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)"',
    '"2016-11-01T09:11:51-05:00"',
    '"Tue, 01 Nov 2016 14:11:51 GMT"',
    "1478009511000",
]


def make_usage(seq: int) -> str:
    """Return a usage as a device might send it."""
    patient = seq % 97 if seq % 2 else f'"{seq % 97}"'
    members = [
        f'"patientId":{patient}',
        f'"timestamp":{TIMES[seq % 4]}',
        '"medication":"Albuterol"',
    ]
    if seq % 5 == 0:
        members.insert(0, f'"device":{{"battery":{seq % 100},"patientId":"0"}}')
    if seq % 5 == 1:
        members.append('"device":"plain text"')
    if seq % 7 == 0:
        members.append(f'"deviceId":"x{seq}"')
    if seq % 97 == 13:
        members.append(f'"deviceID":{seq},"DEVICEID":[],"PatientID":"other"')
        members.append('"serial":12345678901234567890123,"large":1e300')
    if seq % 900 == 0:
        members.append('"note":"é\u2028 \\n \\" {\\"id\\":1}, \\u0007"')
    usage = "{" + ",".join(members) + "}"
    if seq % 3 == 0:
        usage += ',"writer":"8nC3hQ2vXr0aLw_K"' + (',"tenant":"clinic-7"' if seq % 9 == 0 else "")
    return usage


def make_batch(first: int, count: int) -> UsageBatch:
    usages = [make_usage(seq).encode() for seq in range(first, first + count)]
    return join_usages(first, usages, RECEIVED_MS + first)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make finished segments with long and short frames, and an open one."""
    folder = tmp_path_factory.mktemp("readers")
    writer = recover_writer(folder / "archive")
    for count in (3000, 1, 2000, 999):
        writer.append([make_batch(writer.cursor + 1, count)])
        if count in (1, 999):
            writer.close()
            writer = recover_writer(folder / "archive")
    for count in (2500, 500):
        writer.append([make_batch(writer.cursor + 1, count)])
    abandon_writer(writer)
    assert (writer.cursor, len(find_segments(folder))) == (USAGES, 2)
    return folder


@pytest.fixture(scope="module")
def torn_root(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the same archive, whose open segment ends within a frame."""
    folder = tmp_path_factory.mktemp("torn") / "copy"
    shutil.copytree(root, folder)
    frame = compress(render_batches([make_batch(USAGES + 1, 20)], 0, 1))
    path = find_open_segment(folder)
    path.write_bytes(path.read_bytes() + frame[: len(frame) // 2])
    return folder


def find_block(heading: str) -> str:
    """Return the code below a heading of the page."""
    match = re.search(
        rf"^## {re.escape(heading)}\n.*?^```\w+\n(.*?)^```",
        PAGE.read_text(),
        re.DOTALL | re.MULTILINE,
    )
    assert match, heading
    return match[1]


def run_query(root: Path, *command: str, **environment: str) -> str:
    """Run a program in the archive's folder; return the last line that it prints."""
    result = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    if result.returncode:
        return f"error: {result.stderr[-2000:]}"
    return result.stdout.strip().splitlines()[-1]


def find_program(name: str) -> str:
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{name} is not installed")
    return str(path)


def expected_ids() -> list[int]:
    return [seq for seq in range(1, USAGES + 1) if str(seq % 97) == PATIENT]


def check_answer(answer: str) -> None:
    assert not answer.startswith("error"), answer
    assert json.loads(answer) == [USAGES, expected_ids()]


def check_torn(answer: str, torn: str) -> None:
    """Check what the page's table says: an error, or every complete usage."""
    if torn == TORN_IS_ERROR:
        assert answer.startswith("error"), answer
    else:
        check_answer(answer)


WHEELS = {
    "python-zstandard": ALL_TORN,
    "DuckDB": ALL_TORN,
    "Polars": TORN_IS_ERROR,
    "Polars, eager": TORN_IS_ERROR,
    "pandas": ALL_TORN,
    "pyarrow": TORN_IS_ERROR,
    "DataFusion": TORN_IS_ERROR,
}


@pytest.mark.parametrize("reader", WHEELS)
def test_a_reader_in_python_finds_every_usage_and_those_of_a_patient(
    root: Path, torn_root: Path, reader: str
) -> None:
    command, path = (sys.executable, "-c", find_block(reader)), str(FOLDER / "wheels")
    check_answer(run_query(root, *command, PYTHONPATH=path))
    check_torn(run_query(torn_root, *command, PYTHONPATH=path), WHEELS[reader])


def test_clickhouse_finds_every_usage_and_those_of_a_patient(root: Path, torn_root: Path) -> None:
    command = find_program("chdb/bin/python"), "-c", find_block("ClickHouse")
    for folder in (root, torn_root):
        check_answer(run_query(folder, *command))


@pytest.mark.parametrize(("version", "torn"), [("3.5", TORN_IS_ERROR), ("4", ALL_TORN)])
def test_spark_finds_every_usage_and_those_of_a_patient(
    root: Path, torn_root: Path, version: str, torn: str
) -> None:
    python = find_program(f"spark-{version}/bin/python")
    arguments = ["--driver-class-path", find_program("aircompressor.jar")]
    arguments += ["--conf", "spark.hadoop.io.compression.codecs=io.airlift.compress.zstd.ZstdCodec"]
    options = " ".join([*arguments, "pyspark-shell"]) if version == "3.5" else "pyspark-shell"
    for folder, check in ((root, check_answer), (torn_root, lambda text: check_torn(text, torn))):
        check(run_query(folder, python, "-c", find_block("Spark"), PYSPARK_SUBMIT_ARGS=options))


def test_zstd_finds_every_usage_and_those_of_a_patient(root: Path, torn_root: Path) -> None:
    if not shutil.which("zstd") or not shutil.which("jq"):
        pytest.skip("zstd or jq is not installed")
    for folder in (root, torn_root):
        check_answer(run_query(folder, "sh", "-c", find_block("zstd")))
    (path,) = [find_open_segment(torn_root)]
    assert subprocess.run(["zstd", "-qt", path], check=False, capture_output=True).returncode


def test_aircompressor_finds_every_usage_and_those_of_a_patient(
    root: Path, torn_root: Path, tmp_path: Path
) -> None:
    jar = find_program("aircompressor.jar")
    source = Path(__file__).with_name("PrintLines.java")
    subprocess.run(["javac", "-cp", jar, "-d", tmp_path, source], check=True, timeout=200)
    for folder, is_torn in ((root, False), (torn_root, True)):
        paths = sorted(map(str, folder.glob(PATTERN)))
        result = subprocess.run(
            ["java", "-cp", f"{jar}:{tmp_path}", "PrintLines", *paths],
            check=False,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert bool(result.returncode) == is_torn, result.stderr
        if not is_torn:
            rows = [json.loads(line) for line in result.stdout.split("\n") if line]
            ids = [row["id"] for row in rows if str(row["usage"]["patientId"]) == PATIENT]
            check_answer(json.dumps([len(rows), ids]))


def test_the_page_has_the_versions_of_the_locks() -> None:
    locks = [*Path(__file__).parent.glob("*.lock"), PAGE.parents[2] / "requirements-test.lock"]
    text = "\n".join(path.read_text() for path in locks)
    rows = dict(re.findall(r"^\| ([^|]+) \| ([\d.]+) \|", PAGE.read_text(), re.MULTILINE))
    for program, package in PACKAGES.items():
        assert re.search(rf"^{package}=={re.escape(rows[program])}\.", text, re.MULTILINE), program


def test_the_packages_for_the_iceberg_table_are_those_that_were_tested() -> None:
    jar = re.compile(r"(?:org|io)\.[\w.]+:[\w.-]+:[\d.]+\d")
    lake = PAGE.parents[1] / "how-to/lake.md"
    packages = set(jar.findall(lake.read_text()))
    assert len(packages) > 1
    assert packages <= set(jar.findall((PAGE.parents[2] / "Makefile").read_text()))


def test_the_pattern_finds_every_segment_and_no_other_file(root: Path) -> None:
    assert PATTERN in PAGE.read_text()
    assert sorted(root.glob(PATTERN)) == sorted([*find_segments(root), find_open_segment(root)])
