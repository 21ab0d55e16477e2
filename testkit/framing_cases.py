"""Requests whose end or meaning two recipients could understand differently.

Those in `REFUSED_HEADS` and `REFUSED_CHUNKS` get a 400 and their connection is closed. Those
in `ACCEPTED` look similar and are legal. No case may cause an answer to the request hidden in it,
`SMUGGLED`.
"""

from testkit.api_client import BODY

MARKED = b"/livez?smuggled"
SMUGGLED = b"GET %b HTTP/1.1\r\nHost: smuggled\r\n\r\n" % MARKED
SMUGGLED_ANSWER = b"loop: ok"

_LENGTH = len(BODY)
_HEX = b"%x" % _LENGTH
_FIRST, _REST = BODY[:10], BODY[10:]


def render_start(path: bytes = b"/api/usages", host: bytes = b"Host: a\r\n") -> bytes:
    """Render a request line and a Host."""
    return b"POST %b HTTP/1.1\r\n%b" % (path, host)


def with_length(*lines: bytes | str) -> bytes:
    """Render a request with these lines before its Content-Length and body."""
    raw = b"".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    return render_start() + raw + b"Content-Length: %d\r\n\r\n" % _LENGTH + BODY


def with_lengths(value: str) -> bytes:
    """Render a request with this Content-Length. N becomes the correct number."""
    text = f"Content-Length:{value.replace('N', str(_LENGTH))}\r\n\r\n"
    return render_start() + text.encode() + BODY


def with_chunks(*parts: bytes | str, coding: bytes = b"Transfer-Encoding: chunked\r\n") -> bytes:
    """Render a chunked request with these bytes as its body."""
    raw = b"".join(part if isinstance(part, bytes) else part.encode() for part in parts)
    return render_start() + coding + b"\r\n" + raw


def with_one_chunk(size: bytes | str, after: bytes = b"\r\n0\r\n\r\n") -> bytes:
    """Render a chunked request with this as the line before its data."""
    return with_chunks(size, BODY, after)


def with_coding(line: bytes | str) -> bytes:
    """Render a chunked request with this line as its Transfer-Encoding."""
    coding = line if isinstance(line, bytes) else line.encode()
    return with_chunks(_HEX, b"\r\n", BODY, b"\r\n0\r\n\r\n", coding=coding)


REFUSED_HEADS = {
    "length and coding": with_coding(
        b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % _LENGTH
    ),
    "coding and length": with_coding("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
    "two codings": with_coding("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
    "chunked twice": with_coding("Transfer-Encoding: chunked, chunked\r\n"),
    "an unknown coding": with_coding("Transfer-Encoding: x, chunked\r\n"),
    "a coding after VT": with_coding(b"Transfer-Encoding: \x0bchunked\r\n"),
    "a coding after NBSP": with_coding("Transfer-Encoding: \u00a0chunked\r\n"),
    "a coding after LF": with_coding("Transfer-Encoding:\nchunked\r\n"),
    "a coding with the Kelvin sign": with_coding("Transfer-Encoding: chun\u212aed\r\n"),
    "a space before the colon": with_coding("Transfer-Encoding : chunked\r\n"),
    "a folded coding": with_coding("Transfer-Encoding:\r\n chunked\r\n"),
    "a coding in HTTP/1.0": with_coding("Transfer-Encoding: chunked\r\n").replace(b"1.1", b"1.0"),
    "+N": with_lengths(" +N"),
    "-N": with_lengths(" -N"),
    "0xN": with_lengths(f" 0x{_LENGTH:x}"),
    "N_N": with_lengths(" 7_0"),
    "N.0": with_lengths(" N.0"),
    "N N": with_lengths(" N N"),
    "no length": with_lengths(""),
    "different lengths": with_lengths(" N, 4"),
    "different lengths in two lines": with_length("Content-Length: 4\r\n"),
    "a list with an empty element": with_lengths(" N,"),
    "fullwidth digits": with_lengths(" \uff17\uff10"),
    "arabic digits": with_lengths(" \u0667\u0660"),
    "a superscript digit": with_lengths(" 7\u00b2"),
    "N after VT": with_lengths(" N\x0b"),
    "N after FF": with_lengths("\x0cN"),
    "N after NBSP": with_lengths(" N\u00a0"),
    "N after LF": with_lengths("\nN"),
    "N before LF": with_lengths(" N\n"),
    "N before NUL": with_lengths(" N\0"),
    "LF in a value": with_length("X: a\nb\r\n"),
    "CR in a value": with_length("X: a\rb\r\n"),
    "NUL in a value": with_length("X: a\0b\r\n"),
    "ESC in a value": with_length("X: a\x1bb\r\n"),
    "DEL in a value": with_length("X: a\x7fb\r\n"),
    "a hidden coding": with_length("X-Request-ID:\nTransfer-Encoding:chunked\r\n"),
    "a space in a name": with_length("X Y: z\r\n"),
    "no name": with_length(": z\r\n"),
    "no colon": with_length("X\r\n"),
    "a name with the Kelvin sign": with_length("Idempotency-\u212aey: z\r\n"),
    "a name with a dotted I": with_length("Content-\u0130ength: 4\r\n"),
    "a folded value": with_length("X: a\r\n b\r\n"),
    "no Host": render_start(host=b"") + b"Content-Length: %d\r\n\r\n" % _LENGTH + BODY,
    "two Hosts": with_length("Host: b\r\n"),
    "two equal Hosts": with_length("Host: a\r\n"),
    **{
        f"Host {host!r}": render_start(host=f"Host: {host}\r\n".encode())
        + b"Content-Length: %d\r\n\r\n" % _LENGTH
        + BODY
        for host in (
            "a b",
            "a/b",
            "a@b",
            "a,b",
            "a:b",
            "a:1:2",
            "[::1",
            "\u00e9",
            "a%2",
            "a?",
            "a#",
        )
    },
    "line ends of LF": with_length().replace(b"\r\n", b"\n"),
    "one line end of LF": with_length().replace(b"\r\nHost", b"\nHost"),
    "one line end of CR": with_length().replace(b"\r\nHost", b"\rHost"),
    "TAB in the request line": with_length().replace(b" /", b"\t/", 1),
    "two spaces in the request line": with_length().replace(b" /", b"  /", 1),
    "two spaces before the version": with_length().replace(b" HTTP", b"  HTTP", 1),
    "a space after the version": with_length().replace(b"1.1\r\n", b"1.1 \r\n", 1),
    "a space before the method": b" " + with_length(),
    "LF in the target": with_length().replace(b"usages ", b"usages\n ", 1),
    "NUL in the target": with_length().replace(b"usages ", b"usages\0 ", 1),
    "a path that is not ASCII": with_length().replace(b"usages ", "usag\u00e9s ".encode(), 1),
    "no path": with_length().replace(b"/api/usages ", b"? ", 1),
    "a fragment alone": with_length().replace(b"/api/usages ", b"# ", 1),
    "an asterisk": with_length().replace(b"/api/usages ", b"* ", 1),
    "a user in the target": with_length().replace(b" /api", b" http://u@h/api", 1),
    "no host in the target": with_length().replace(b" /api", b" http:///api", 1),
    "a method that is not a token": with_length().replace(b"POST", b"PO(ST", 1),
    "no version": with_length().replace(b" HTTP/1.1", b"", 1),
    "HTTP/1.2": with_length().replace(b"HTTP/1.1", b"HTTP/1.2", 1),
    "HTTP/2.0": with_length().replace(b"HTTP/1.1", b"HTTP/2.0", 1),
    "http/1.1": with_length().replace(b"HTTP/1.1", b"http/1.1", 1),
    "HTTP/1.10": with_length().replace(b"HTTP/1.1", b"HTTP/1.10", 1),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": b"CONNECT evil.example:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "nine empty lines": b"\r\n" * 9 + with_length(),
}
"""Refused because of their head, on every port."""

REFUSED_CHUNKS = {
    "0xN": with_one_chunk(b"0x%b\r\n" % _HEX),
    "0XN": with_one_chunk(b"0X%b\r\n" % _HEX),
    "a space before N": with_one_chunk(b" %b\r\n" % _HEX),
    "a space after N": with_one_chunk(b"%b \r\n" % _HEX),
    "a TAB after N": with_one_chunk(b"%b\t\r\n" % _HEX),
    "a space before an extension": with_one_chunk(b"%b ;a=b\r\n" % _HEX),
    "VT before N": with_one_chunk(b"\x0b%b\r\n" % _HEX),
    "CRLF before N": with_one_chunk(b"\r\n%b\r\n" % _HEX),
    "LF before N": with_one_chunk(b"\n%b\r\n" % _HEX),
    "+N": with_one_chunk(b"+%b\r\n" % _HEX),
    "-N": with_one_chunk(b"-%b\r\n" % _HEX),
    "N_N": with_one_chunk("4_6\r\n"),
    "no N": with_one_chunk("\r\n"),
    "fullwidth digits": with_one_chunk("\uff14\uff16\r\n"),
    "nine digits": with_one_chunk(_HEX.rjust(9, b"0") + b"\r\n"),
    "LF in an extension": with_one_chunk(b"%b;\n\r\n" % _HEX),
    "CR in an extension": with_one_chunk(b"%b;\rx\r\n" % _HEX),
    "NUL in an extension": with_one_chunk(b"%b;\0\r\n" % _HEX),
    "DEL in an extension": with_one_chunk(b"%b;\x7f\r\n" % _HEX),
    "an extension of 257 bytes": with_one_chunk(b"%b;%b\r\n" % (_HEX, b"x" * 257)),
    "an extension of 60 kB": with_one_chunk(b"%b;%b\r\n" % (_HEX, b"x" * 60_000)),
    "many long extensions": with_chunks(
        *(b"1;%b\r\n%c\r\n" % (b"x" * 250, byte) for byte in BODY), b"0\r\n\r\n"
    ),
    "LF after N": with_one_chunk(b"%b\n" % _HEX),
    "LF only": with_one_chunk(b"%b\n" % _HEX, b"\n0\n\n"),
    "XX after data": with_chunks("a\r\n", _FIRST, b"XX%x\r\n" % len(_REST), _REST, "\r\n0\r\n\r\n"),
    "LF LF after data": with_chunks(
        "a\r\n", _FIRST, b"\n\n%x\r\n" % len(_REST), _REST, "\r\n0\r\n\r\n"
    ),
    "LF after data": with_chunks("a\r\n", _FIRST, b"\n%x\r\n" % len(_REST), _REST, "\r\n0\r\n\r\n"),
    "more data than N": with_chunks(
        "9\r\n", _FIRST, b"\r\n%x\r\n" % len(_REST), _REST, "\r\n0\r\n\r\n"
    ),
    "XX before the last": with_one_chunk(b"%b\r\n" % _HEX, b"XX0\r\n\r\n"),
    "0x0": with_one_chunk(b"%b\r\n" % _HEX, b"\r\n0x0\r\n\r\n"),
    "a trailer without a colon": with_one_chunk(b"%b\r\n" % _HEX, b"\r\n0\r\nX\r\n\r\n"),
    "a trailer with NUL": with_one_chunk(b"%b\r\n" % _HEX, b"\r\n0\r\nX: \0\r\n\r\n"),
    "a trailer with LF": with_one_chunk(b"%b\r\n" % _HEX, b"\r\n0\r\nX: y\n\r\n"),
    "trailers of 10 kB": with_one_chunk(
        b"%b\r\n" % _HEX, b"\r\n0\r\n" + b"X: yyyy\r\n" * 1000 + b"\r\n"
    ),
    "a request for a trailer": with_one_chunk(b"%b\r\n" % _HEX, b"\r\n0\r\n" + SMUGGLED),
}
"""Refused while the body is read."""

ACCEPTED = {
    "a length": with_length(),
    "chunked": with_one_chunk(b"%b\r\n" % _HEX),
    "Chunked": with_coding("Transfer-Encoding: Chunked\r\n"),
    "CHUNKED, no space": with_coding("transfer-encoding:CHUNKED\r\n"),
    "a space after the coding": with_coding("Transfer-Encoding: chunked \t\r\n"),
    "equal lengths": with_length(f"Content-Length: {_LENGTH}\r\n"),
    "a list of equal lengths": with_lengths(" N, N"),
    "a list of equal lengths in two lines": with_lengths(f" N ,\tN\r\nContent-Length: {_LENGTH}"),
    "a space after the length": with_lengths(" N \t"),
    "a length with zeros": with_lengths(" 000N"),
    "eight digits": with_one_chunk(_HEX.rjust(8, b"0").upper() + b"\r\n"),
    "an extension": with_one_chunk(b'%b;a=b;c="d e"\r\n' % _HEX),
    "an extension of 256 bytes": with_one_chunk(b"%b;%b\r\n" % (_HEX, b"x" * 256)),
    "000 at the end": with_one_chunk(b"%b\r\n" % _HEX, b"\r\n000\r\n\r\n"),
    "two chunks": with_chunks("a\r\n", _FIRST, b"\r\n%x\r\n" % len(_REST), _REST, "\r\n0\r\n\r\n"),
    "a chunk for each byte": with_chunks(*(b"1\r\n%c\r\n" % byte for byte in BODY), b"0\r\n\r\n"),
    "a trailer": with_one_chunk(b"%b\r\n" % _HEX, b"\r\n0\r\nX: y\r\nExpires:\r\n\r\n"),
    "Expect in HTTP/1.0": with_length("Connection: keep-alive\r\nExpect: more\r\n").replace(
        b"1.1", b"1.0"
    ),
    "an empty line before": b"\r\n" + with_length(),
    "eight empty lines before": b"\r\n" * 8 + with_length(),
    "an absolute target": with_length().replace(b" /api", b" http://evil.example:80/api", 1),
    "UTF-8 in a query": with_length().replace(b"usages ", "usages?q=\u00e9\u20ac ".encode(), 1),
    "Latin-1 in a query": with_length().replace(b"usages ", b"usages?q=\xe9 ", 1),
    "Latin-1 in a value": with_length(b"X: \xe9\xff\r\n"),
    "TAB in a value": with_length("X: a\tb\r\n"),
    "an upgrade to h2c": with_length(
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    ),
    "an upgrade to websocket": with_length("Connection: upgrade\r\nUpgrade: websocket\r\n"),
    **{
        f"Host {host!r}": render_start(host=f"Host: {host}\r\n".encode())
        + b"Content-Length: %d\r\n\r\n" % _LENGTH
        + BODY
        for host in ("", "a_b.c", "127.0.0.1:80", "[::1]:3000", "a:", "a%2Db")
    },
}
"""Legal: stored, and the connection stays open."""
