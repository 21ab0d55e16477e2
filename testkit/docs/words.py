"""Words and names that this project does not use, with what to write instead.

`testkit/docs/word_scan.py` finds them.
"""

from typing import NamedTuple


class Rule(NamedTuple):
    """A pattern, what to write instead, and a text that the pattern matches."""

    pattern: str
    instead: str
    example: str


PROSE = (
    Rule(r"anew", "again; rewrite", "writes the file anew"),
    Rule(r"ours|theirs", "busyapi's; say whose", "an exception of ours"),
    Rule(r"(?<!there\s)(?:is|are|was|were|be|been) none", "there is no", "a line is none"),
    Rule(r"let(?:s|ting)? (?:\w+ ){0,3}go", "release", "lets its lock go"),
    Rule(r"(?:go|goes|going|went|gone) on", "continue", "the flusher goes on"),
    Rule(r"(?:stands?|stood)(?! for)(?!-)", "is", "a rule stands in two places"),
    Rule(r"told|tells|telling", "gets; says; names", "a lane is told no"),
    Rule(
        r"(?:would|will|can|could|cannot|may|might|not|it|they) tells?",
        "reveal; say; distinguish",
        "a 403 would tell how many",
    ),
    Rule(r"(?:for|to|of|by|from|with) who", "for clients that", "OpenMetrics for who accepts it"),
    Rule(r"for whom", "name the reader", "for whom a probe is meant"),
    Rule(r"(?:knows?|says?|sees?|notes?) whose", "say which", "it says whose lease it is"),
    Rule(r"nobody|no one", "no client; no process", "an id that nobody has"),
    Rule(r"beside (?:it|them|this|that|each other)", "next to; also", "a rule beside it"),
    Rule(r"thing (?:that|which)", "name it", "a thing that waits"),
    Rule(r"(?:is|are|was|were|be|been) away", "is down; is unavailable", "while Redis is away"),
    Rule(r"(?:speaks?|spoke|spoken) of", "refer to; record", "what Redis speaks of"),
    Rule(r"(?:can|could|may|cannot|to) be had", "is available", "it can be had from PyPI"),
    Rule(r"all is well|(?:is|are|was) well", "is healthy", "when all is well"),
    Rule(r"now and then", "say how often", "looked at now and then"),
    Rule(r"(?:held|holds?|holding) (?:\w+ ){0,4}against", "check", "held against the archive"),
    Rule(r"held to", "checked against", "the page is held to the code"),
    Rule(r"vouch(?:es|ed)?", "accept", "a flusher vouches for it"),
    Rule(r"(?:there|here|where)(?:of|in|upon|by|to)", "say of what", "the end thereof"),
    Rule(r"whence|thence|henceforth|thither|hither", "so; from there", "thence to Redis"),
    Rule(r"naught|nought|save for|ere|thus", "nothing; except; so", "thus it waits"),
    Rule(r"what is meant|is meant by", "means", "what is meant by it"),
    Rule(r"(?:fast )?lanes?", "committer; fast path", "a lane lost Redis"),
    Rule(r"(?<!in\s)(?<!in-)flights?", "in-flight batch", "the next flight is sent"),
    Rule(r"(?:read )?doors?", "FlusherServer; the only module that", "behind this door"),
    Rule(r"intakes?", "buffer", "the intake reads"),
    Rule(r"standings?", "connection state", "a standing changes"),
)

NAMES = (
    Rule(r"\bLanes?\b|\b[a-z_]*_lanes?\b|\blanes?_[a-z_]*\b", "Committer", "lane_ready"),
    Rule(r"fast_?lane|fastLane|FAST_LANE", "fast_path", "BUSYAPI_FAST_LANE"),
    Rule(r"\bUnderWay\b", "FastPathWrite", "UnderWay"),
    Rule(r"\bArchiveDoor\b", "ArchiveClient", "ArchiveDoor"),
    Rule(r"\bKnownProtocol\b|\bNumberedHttp\b|\bWholeRequest\b", "Tracked…", "WholeRequest"),
    Rule(r"\b_?(?:MOST|LEAST|HIGHEST)_[A-Z]", "MAX_, MIN_", "MOST_USAGES"),
    Rule(r"\bRedisAway\b|\bArchiveAway\b", "…Unavailable", "RedisAway"),
    Rule(r"\bTooWeak\b|\bStoredUnknown\b", "DurabilityNotMet, OutcomeUnknown", "TooWeak"),
    Rule(r"\bNotAUsage\b|\bNoLongerKept\b|\bKeyReused\b", "InvalidUsage, …", "KeyReused"),
    Rule(
        r"\bcannot_run\b|\bids_jumped\b|\bfew_files\b",
        "fatal_error, ids_skipped, open_files_limit_low",
        "ids_jumped",
    ),
    Rule(r"\bquick_line\b|\brender_thoroughly\b", "decode_fast, encode_validated", "quick_line"),
)

VARIABLES = {"each", "found", "said", "wanted", "told"}
FUNCTIONS = VARIABLES | {
    "made",
    "chosen",
    "cut",
    "named",
    "arrived",
    "remembered",
    "given",
    "taken",
}
FIRST_WORDS = {"What", "Who", "Whose", "Whether", "Give", "Say", "Tell", "Likewise", "Likewise,"}
"""No function's docstring begins with these."""

PENDING: tuple[str, ...] = ()
"""Files and folders that are not rewritten yet. Remove an entry when you rewrite what it names."""

ALLOWED = {
    # The benchmark starts older versions too.
    "bench/scenarios.py": ("BUSYAPI_FAST_LANE",),
    "testkit/processes.py": ("busyapi_lanes_ready",),
    # The former names are accepted, with a warning, in 0.3.
    "charts/busyapi/templates/NOTES.txt": ("fastLane",),
    "charts/busyapi/templates/configmap.yaml": ("fastLane",),
    "charts/busyapi/values.schema.json": ("fastLane",),
    "docs/reference/settings.md": ("BUSYAPI_FAST_LANE",),
    "service/busyapi/renamed_settings.py": ("BUSYAPI_FAST_LANE",),
    "tests/chart/test_settings.py": ("fastLane",),
    "tests/unit/test_settings.py": ("BUSYAPI_FAST_LANE",),
    # The changelog names them.
    "tests/docs/test_metrics.py": ("busyapi_lane_failures_total", "busyapi_lanes_ready"),
    # Keys in Redis keep their names.
    "service/busyapi/stream/keys.py": ("busyapi:{0}:lane:",),
}
"""Texts that a file may have all the same."""

SKIPPED = (
    "testkit/docs/words.py",
    "tests/docs/test_words.py",
    "LICENSE",
    "*.lock",
    "*.tgz",
    "*.png",
)
"""The rules themselves, a text that is not of this project, and what is not text."""
