"""An archive whose usages are known, and the answers to the questions of docs/analysis.md."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from busyapi.archive.format import UsageBatch
from busyapi.ids import Seq
from testkit.archive.builder import abandon_writer, recover_writer

PAGE = Path(__file__).parents[2] / "docs/analysis.md"
FIRST = datetime(2026, 11, 1, 6, tzinfo=UTC)
USAGES = 600
PARTITIONS = 2
TENANTS = ("", "north", "south")
WRITER = ',"writer":"8nC3hQ2vXr0aLw_K"'

Row = tuple[Any, ...]


@dataclass(frozen=True)
class KnownUsage:
    """A usage, and what is known about it."""

    id: int
    received: datetime
    device: datetime | None
    device_text: str
    patient: str
    medication: str
    tenant: str | None
    battery: int | None

    @property
    def extra(self) -> str | None:
        """Its further members as JSON."""
        if self.battery is None:
            return None
        return json.dumps({"device": {"battery": self.battery}}, separators=(",", ":"))

    def render(self) -> bytes:
        """Return it as the stream has it, with its stamp."""
        named: dict[str, Any] = {
            "patientId": int(self.patient) if self.patient.isdecimal() else self.patient,
            "timestamp": self.device_text,
            "medication": self.medication,
        }
        usage = json.dumps(named | json.loads(self.extra or "{}"), separators=(",", ":"))
        tenant = f',"tenant":"{self.tenant}"' if self.tenant else ""
        return f"{usage}{WRITER}{tenant}".encode()


def make_usages() -> list[KnownUsage]:
    """Return all usages.

    Some are late, ahead of their time, stored twice or without a time, and two patients stop.
    """
    usages = []
    for number in range(USAGES):
        # A seq of both partitions is received at one time, a pair each 45 minutes.
        received = FIRST + timedelta(minutes=45 * (number // PARTITIONS), milliseconds=number % 7)
        source = number - PARTITIONS if number % 50 in (20, 21) else number  # the same again
        lag = (3, 2 * 3600, 30, -600 if source % 3 == 0 else 60)[source % 4]
        device = FIRST + timedelta(minutes=45 * (source // PARTITIONS)) - timedelta(seconds=lag)
        text = device.isoformat().replace("+00:00", "Z")
        is_time = source % 40 != 7
        silent = number > USAGES // 8 and source % 10 in (1, 2)
        patient = 3 if silent else source % 10
        usages.append(
            KnownUsage(
                id=number + 1,
                received=received,
                device=device if is_time else None,
                device_text=text if is_time else "no time",
                patient=("ä-1", "p 2")[patient - 1] if patient in (1, 2) else str(patient),
                medication=("Albuterol", "Budesonide", "Salmeterol")[source % 7 % 3],
                tenant=TENANTS[source % 3] or None,
                battery=source % 100 if source % 5 else None,
            )
        )
    return usages


def build_archive(root: Path) -> list[KnownUsage]:
    """Write the usages: two partitions, finished segments and open ones."""
    usages = make_usages()
    for partition in range(PARTITIONS):
        own = usages[partition::PARTITIONS]
        writer = recover_writer(root, partition, PARTITIONS)
        batches = [
            UsageBatch(Seq(seq), Seq(seq), _to_ms(usage.received), usage.render())
            for seq, usage in enumerate(own, 1)
        ]
        writer.append(batches[:50])
        writer.append(batches[50:150])
        writer.close()
        writer = recover_writer(root, partition, PARTITIONS)
        writer.append(batches[150:250])
        writer.append(batches[250:])
        abandon_writer(writer)
    return usages


def _to_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def answer_all(usages: list[KnownUsage]) -> dict[str, list[Row]]:
    """Return the rows of each answer, by the question's heading."""
    newest = max(usage.received for usage in usages)
    last: dict[str, datetime] = {}
    copies: dict[Row, list[int]] = defaultdict(list)
    for usage in usages:
        last[usage.patient] = max(last.get(usage.patient, FIRST), usage.received)
        key = usage.patient, usage.device_text, usage.medication, usage.extra
        copies[key].append(usage.id)
    days = Counter(usage.received.date() for usage in usages)
    medications = Counter(usage.medication for usage in usages)
    of_medication = {(usage.medication, usage.patient) for usage in usages}
    patients = Counter(medication for medication, _ in of_medication)
    late = Counter(
        usage.received.date()
        for usage in usages
        if usage.device and usage.device < usage.received - timedelta(hours=1)
    )
    ahead: dict[str, list[int]] = defaultdict(list)
    batteries: dict[str, list[int]] = defaultdict(list)
    for usage in usages:
        if usage.device and usage.device > usage.received + timedelta(minutes=5):
            ahead[usage.patient].append((usage.device - usage.received) // timedelta(seconds=1))
        if usage.battery is not None:
            batteries[usage.patient].append(usage.battery)
    return {
        "How many usages has each patient on each day?": sorted(
            (*key, count)
            for key, count in Counter(
                (usage.patient, usage.received.date()) for usage in usages
            ).items()
        ),
        "How much is each medication used, and by how many patients?": sorted(
            ((name, count, patients[name]) for name, count in medications.items()),
            key=lambda row: (-row[1], row[0]),
        ),
        "Whose device has a clock that is ahead?": sorted(
            (patient, len(seconds), max(seconds)) for patient, seconds in ahead.items()
        ),
        "How many usages arrive late?": sorted(
            (day, count, late[day]) for day, count in days.items()
        ),
        "Which usages were stored twice?": sorted(
            ((*key, len(ids), min(ids)) for key, ids in copies.items() if len(ids) > 1),
            key=lambda row: row[-1],
        ),
        "Which patients had no usage for seven days?": sorted(
            item for item in last.items() if item[1] < newest - timedelta(days=7)
        ),
        "At which hours are inhalers used?": sorted(
            Counter(usage.device.hour for usage in usages if usage.device).items()
        ),
        "What has been received, and when?": [
            (len(usages), 1, len(usages), min(usage.received for usage in usages), newest)
        ],
        "How many usages has each tenant in each partition?": sorted(
            (*key, count)
            for key, count in Counter(
                (usage.tenant or "none", (usage.id - 1) % PARTITIONS) for usage in usages
            ).items()
        ),
        "What do devices send besides?": sorted(
            (patient, len(values), min(values))
            for patient, values in batteries.items()
            if min(values) < 20
        ),
    }


def read_queries(language: str) -> dict[str, str]:
    """Return the page's queries in a language, by heading."""
    pattern = re.compile(rf"```{language}\n(.*?)```", re.DOTALL)
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    queries = {section.partition("\n")[0]: pattern.findall(section) for section in sections}
    return {heading: blocks[0] for heading, blocks in queries.items() if len(blocks) == 1}


def simplify(rows: Iterable[Iterable[Any]]) -> list[list[Any]]:
    """Return rows as JSON has them: every reader has types of its own for the same values."""
    return [[_simplify(value) for value in row] for row in rows]


def _simplify(value: Any) -> Any:
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, date):
        return str(value)
    return value
