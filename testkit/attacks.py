"""Batches that are made to cost much CPU for their size."""

from collections.abc import Callable

from busyapi.decode.limits import LONG_BYTES

USAGE = b'{"patientId":"1","timestamp":1478009511000,"medication":"a"}'
MAX_BATCH_BYTES = 4_190_000
"""Bytes just below the limit of a batch."""
MAX_USAGE_BYTES = 65_000


def array(item: bytes, size: int = MAX_BATCH_BYTES, max_items: int = 10_000_000) -> bytes:
    """Return a batch of one item as often as it fits."""
    return b"[" + b",".join([item] * min(max_items, size // (len(item) + 1))) + b"]"


def usage(member: bytes) -> bytes:
    """Return a usage with one more member."""
    return USAGE[:-1] + b"," + member + b"}"


def usages(element: bytes, more: bytes = b'"y":0') -> bytes:
    """Return a batch of usages full of an element, as large as can be read in this way."""
    size = LONG_BYTES if more in {AGAIN, TINY} else MAX_USAGE_BYTES
    inside = array(element, size - 200 - len(more))
    return array(usage(b'"x":%b,%b' % (inside, more)))


# The first member causes a second, thorough read, of a usage up to LONG_BYTES; the second member
# makes the usage valid.
AGAIN = b'"y":1e400,"y":1'
# Each float is read by Python. The size is that of a usage with `AGAIN`.
TINY = b'"y":1e-400'
NESTED = b"[" * 57 + b"]" * 57
OBJECTS = b'{"a":' * 57 + b"1" + b"}" * 57
ENDS = b'"' + b'},{"patientId":' * 8 + b'"'


def names() -> bytes:
    """Return many members with different names."""
    return b",".join(b'"k%d":{}' % number for number in range(300_000))


ATTACKS: dict[str, Callable[[], bytes]] = {
    "last of 9,999 bad": lambda: array(USAGE, max_items=9_999)[:-1] + b",1]",
    "10,000 bad": lambda: array(b'{"a":1}', max_items=10_000),
    "some bad": lambda: (
        b"[" + b",".join(b"1" if n % 250 == 9 else USAGE for n in range(9_999)) + b"]"
    ),
    "array of []": lambda: array(b"[]"),
    "array of {}": lambda: array(b"{}"),
    "array of digits": lambda: array(b"1"),
    "array of nested arrays": lambda: array(NESTED),
    "only opening brackets": lambda: b"[" * MAX_BATCH_BYTES,
    "one usage of {}": lambda: b"[" + usage(b'"x":' + array(b"{}")) + b"]",
    "one usage of [[]], bad end": lambda: (
        b"[" + usage(b'"x":' + array(b"[[]]")[:-1] + b",1e400]") + b"]"
    ),
    "one usage of nested arrays": lambda: b"[" + usage(b'"x":' + array(NESTED)) + b"]",
    "one usage of nested objects": lambda: b"[" + usage(b'"x":' + array(OBJECTS)) + b"]",
    "one usage of names, bad end": lambda: b"[" + usage(names())[:-1] + b',"z":1e400}]',
    "one usage of one name": lambda: b"[" + usage(b",".join([b'"k":[]'] * 500_000)) + b"]",
    "one number of 4 MB": lambda: b"[" + usage(b'"x":0.' + b"1" * (MAX_BATCH_BYTES - 100)) + b"]",
    "one name of 4 MB": lambda: (
        b"[" + usage(b'"%b":1e400' % (b"k" * (MAX_BATCH_BYTES - 100))) + b"]"
    ),
    "usages of []": lambda: usages(b"[]"),
    "usages of {}": lambda: usages(b"{}"),
    "usages of nested arrays": lambda: usages(NESTED),
    "usages of as many arrays as are taken": lambda: usages(b"[],1111,11"),
    "usages of objects, read twice": lambda: usages(b'{"":0},11,"aaaa"', AGAIN),
    "usages of digits, read twice": lambda: usages(b"1", AGAIN),
    "usages of fractions, read twice": lambda: usages(b"1.5", AGAIN),
    "usages of texts, read twice": lambda: usages(b'"a"', AGAIN),
    "usages of other texts, read twice": lambda: usages('"é"'.encode(), AGAIN),
    "usages of numbers too large": lambda: usages(b"1e400"),
    "usages of large numbers": lambda: usages(b"1e300"),
    "usages of 20 digits": lambda: usages(b"35543994774517951114e99"),
    "usages of exponents": lambda: usages(b"1e23"),
    "usages of tiny numbers": lambda: usages(b"1e-323"),
    "lines: large numbers": lambda: b"\n".join([usage(b'"x":' + array(b"1e300", 300))] * 9_999),
    "usages of 4,300 digits": lambda: usages(b"9" * 4_300),
    "usages of 4,301 digits": lambda: usages(b"9" * 4_301),
    "usages of long fractions": lambda: usages(b"0." + b"123456789" * 33 + b"1e-5"),
    "usages of escapes": lambda: usages(b'"' + b"\\ud83d\\ude00" * 500 + b'"'),
    "usages of what looks like their ends": lambda: usages(ENDS),
    "a text without an end": lambda: b'["' + b'\\"' * (MAX_BATCH_BYTES // 2),
    "blanks": lambda: b"[" + b" " * MAX_BATCH_BYTES + b"]",
    "a byte order mark": lambda: b"\xef\xbb\xbf" + array(USAGE, max_items=10_000),
    "unpaired surrogates": lambda: array(usage(b'"x":"\\ud800"'), max_items=10_000),
    "unpaired surrogates, some in a patient": lambda: (
        b"["
        + b",".join(
            USAGE.replace(b'"1"', b'"\\ud800"') if n % 250 == 9 else usage(b'"x":"\\ud800"')
            for n in range(9_999)
        )
        + b"]"
    ),
    "unpaired surrogates, read twice": lambda: array(
        usage(b'"x":"\\ud800",' + AGAIN), max_items=10_000
    ),
    "usages of unpaired surrogates": lambda: usages(b'"\\ud800"'),
    "usages of unpaired surrogates, read twice": lambda: usages(b'"\\ud800"', AGAIN),
    "whole times": lambda: array(USAGE.replace(b"000,", b"000.0,"), max_items=10_000),
    "whole patients": lambda: array(USAGE.replace(b'"1"', b"1.0"), max_items=10_000),
    "implausible times": lambda: array(USAGE.replace(b"000,", b","), max_items=10_000),
    "whole times, fractions": lambda: usages(b"1.5", TINY).replace(b"000,", b"000.0,"),
    "lines: unpaired surrogates": lambda: b"\n".join([usage(b'"x":"\\ud800"')] * 9_999),
    "lines: empty": lambda: b"{" + b"\n" * MAX_BATCH_BYTES + b"}",
    "lines: marks": lambda: b"\n".join([b"\xef\xbb\xbf" + USAGE] * 9_999),
    "lines: read twice": lambda: b"\n".join(
        [usage(b'"x":' + array(b"1", 300) + b"," + AGAIN)] * 9_999
    ),
}
"""Built when they are sent, because together they are 150 MB."""
