"""The profile of a post: what the samples of perf and py-spy count as."""

from pathlib import Path

from bench.profile import (
    INTERPRETER,
    OTHER,
    OTHER_KERNEL,
    OTHER_PYTHON,
    POLL,
    RECEIVE,
    SEND,
    classify_python,
    classify_samples,
    divide,
    plot,
)

KERNEL = "([kernel.kallsyms])"
SCRIPT = f"""
\tffffffff820832bd tcp_write_xmit {KERNEL}
\tffffffff816d63c3 ksys_write {KERNEL}
\t           f8350 __GI___libc_write (/usr/lib/x86_64-linux-gnu/libc.so.6)

\tffffffff820832bd tcp_recvmsg_locked {KERNEL}
\tffffffff816d63c3 __x64_sys_read {KERNEL}

\tffffffff820832bd ep_poll {KERNEL}
\tffffffff816d63c3 __x64_sys_epoll_pwait {KERNEL}

\tffffffff820832bd irqentry_exit_to_user_mode {KERNEL}

\t          503210 _PyEval_EvalFrameDefault (/usr/bin/python3.11)

\t    7fb5fcd78054 Handle__run (/venv/lib/python3.11/site-packages/uvloop/loop.cpython-311.so)

\t    7fb5fe3e6932 malloc (/usr/lib/x86_64-linux-gnu/libc.so.6)
""".splitlines()


def test_each_sample_counts_once_by_what_ran() -> None:
    assert classify_samples(SCRIPT) == {
        SEND: 1,
        RECEIVE: 1,
        POLL: 1,
        OTHER_KERNEL: 1,
        INTERPRETER: 1,
        "uvloop": 1,
        OTHER: 1,
    }


def test_samples_of_python_count_for_the_innermost_step(tmp_path: Path) -> None:
    source = tmp_path / "protocol.py"
    source.write_text("transport.write(message)\nanswer()\n")
    post = "main (busyapi/cli.py:1);data_received (busyapi/api/fast_path.py:3)"
    raw = [
        f"{post};decode_fast (busyapi/decode/usage.py:9) 3",
        f"{post};add (/lib/library.py:9) 2",
        f"{post};send ({source}:1) 50",  # in a system call
        f"{post};send ({source}:2) 1",
        "main (busyapi/cli.py:1);_run_server_forever (sanic/runners.py:210) 40",
        "sleep (/lib/threading.py:1) 4",
    ]
    assert classify_python(raw) == {
        "decode the usage": 3,
        "submit and answer": 3,
        OTHER_PYTHON: 4,
    }


def test_the_parts_add_up_and_are_drawn(tmp_path: Path) -> None:
    parts = divide(classify_samples(SCRIPT), 14.0)
    assert round(sum(parts.values()), 6) == 14
    plot(parts, {"decode the usage": 2.0}, tmp_path / "profile.png")
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")
