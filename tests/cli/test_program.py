"""The program as others start it: signals, pipes, full disks, what it imports."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from command_line import PROGRAM, posix, program, run, stub
from reports import flagging

from bre.verbs.versions import versions


def test_help_has_an_example_for_every_command():
    done = run("--help")
    assert done.exit_code == 0
    for name in ("screen", "detect", "cleanse", "demo", "info"):
        assert f"\n  {name} " in done.stdout
        assert f"Example: bre {name}" in run(name, "--help").stdout
    assert "..." not in done.stdout.partition("Commands:")[2]


def test_help_and_completion_do_not_wait_for_torch():
    code = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); {PROGRAM}"
    words = {"COMP_WORDS": "bre screen x --a", "COMP_CWORD": "3", "_BRE_COMPLETE": "complete_bash"}
    for args, environment in ((["screen", "--help"], {}), (["--version"], {}), ([], words)):
        done = program(*args, code=code, env={**os.environ, **environment})
        assert done.stdout.endswith("\nFalse\n"), done.stdout + done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_here(data):
    done = run("detect", data, "--model", data, "--device", "cuda:3")
    assert done.exit_code == 2
    assert done.stderr.startswith("bre: error: there is no cuda:3 here: ")


def test_the_program_runs():
    done = program("info")
    assert (done.returncode, done.stderr) == (0, "")
    assert versions()["torch"] in done.stdout


def test_version():
    assert run("--version").stdout == f"bre {versions()['bre']}\n"


def test_completion_knows_the_backends():
    line = "bre screen x --backend "
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_BRE_COMPLETE": "complete_bash"}
    done = program(env={**os.environ, **words})
    assert done.stderr == ""
    assert {"auto", "reference", "cpu"} <= set(done.stdout.split())


def test_errors_name_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("cleanse", "set.npz", "report", "--out", "clean.npz")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "bre: error: no such report: report (a saved report is a folder)\n"


@posix
def test_colour_is_for_terminals_only(data, tmp_path):
    import pty

    flagging(data).save(tmp_path / "report")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", stub(tmp_path / "report"), "screen", str(data)]
    terminal = {**os.environ, "TERM": "xterm"}
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, env=terminal, timeout=180)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert (done.returncode, done.stderr) == (1, b"")
    assert "\x1b[1;31mPOISONED (p = 0.001, alpha = 0.05)\x1b[0m" in shown
    assert "\x1b[1mFinding 1" in shown


@posix
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signals_leave_nothing_half_written(data, tmp_path, name, status):
    """While the report is being written: two of its files are there, the third never comes."""
    flagging(data).save(tmp_path / "report")
    waiting = "import numpy; numpy.savez = lambda *a, **k: (print('now', flush=True), time.sleep(60))"
    code = stub(tmp_path / "report", f"{waiting}; return Report.load(REPORT)")
    (tmp_path / "here").mkdir()
    command = [sys.executable, "-c", code, "screen", str(data), "--out", "new"]
    with subprocess.Popen(
        command,
        cwd=tmp_path / "here",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of a shell ignore it
    ) as running:
        while running.stdout.readline().strip() != b"now":
            assert running.poll() is None
        assert len(os.listdir(tmp_path / "here")) == 1  # the unfinished one, under another name
        running.send_signal(getattr(signal, name))
        _, error = running.communicate(timeout=180)
    assert running.returncode == status
    assert error == b"bre: interrupted, nothing was left half-written\n"
    assert os.listdir(tmp_path / "here") == []


@posix
@pytest.mark.parametrize("option", ["--out", "--sarif"])
def test_a_full_disk_leaves_nothing_half_written(data, tmp_path, option):
    flagging(data).save(tmp_path / "report")
    (tmp_path / "here").mkdir()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)); return Report.load(REPORT)"
    done = program("screen", data, option, "new", code=stub(tmp_path / "report", limit), cwd=tmp_path / "here")
    assert done.returncode == 2
    assert done.stdout.startswith("POISONED")  # what was found is not lost
    assert done.stderr == ("bre: error: File too large; nothing was left half-written, write to where there is room\n")
    assert os.listdir(tmp_path / "here") == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_an_output_that_takes_nothing_is_an_error(data, tmp_path):
    flagging(data, {}).save(tmp_path / "report")
    command = [sys.executable, "-c", stub(tmp_path / "report"), "screen", str(data), "--json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=180)
    assert done.returncode == 2
    assert done.stderr.startswith("bre: error: No space left on device")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(
    "args", [["screen", "nothing.npz"], ["screen", "nothing.npz", "--traceback"], ["nonsense"], []]
)
def test_an_error_is_no_finding_where_stderr_takes_nothing(tmp_path, args):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", PROGRAM, *args]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, cwd=tmp_path, timeout=180)
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_verdict_stays_where_stderr_takes_nothing(data, tmp_path):
    flagging(data).save(tmp_path / "report")
    command = [
        sys.executable,
        "-c",
        stub(tmp_path / "report"),
        "screen",
        str(data),
        "--out",
        str(tmp_path / "new"),
        "-v",
    ]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, timeout=180)
    assert done.returncode == 1
    assert done.stdout.startswith(b"POISONED")


@pytest.mark.parametrize(
    "broken",
    [
        "import sys; sys.modules['typer'] = None",
        "import bre.cli.exit_status as e; e.printable = None",  # the handler of errors fails itself
        "import bre.cli.commands as c; c.app = lambda **_: None",
        "import bre.cli.commands as c\ndef app(**_): raise SystemExit('no')\nc.app = app",
    ],
)
def test_a_failure_that_reaches_no_handler_is_no_finding(tmp_path, broken):
    done = program("screen", "nothing.npz", code=f"import sys\n{broken}\n{PROGRAM}", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


@posix
@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "ImportError('numpy failed')"])
def test_interrupted_while_importing(raised):
    """An import may turn what a signal raises into another error."""
    hook = f"""
import os, signal, sys
class Importing:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            try:
                os.kill(os.getpid(), signal.SIGINT)
                signal.pause()
            except KeyboardInterrupt:
                raise {raised}
sys.meta_path.insert(0, Importing())
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
    done = program("info", code=hook + PROGRAM)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "bre: interrupted, nothing was left half-written\n"


@posix
def test_nobody_reads_the_output():
    reading, writing = os.pipe()
    os.close(reading)
    for args in (["--help"], ["screen", "--help"], ["--version"]):
        command = [sys.executable, "-c", PROGRAM, *args]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=180)
        assert (done.returncode, done.stderr) == (2, "")
    command = [sys.executable, "-c", PROGRAM, "info"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=180)
    os.close(writing)
    assert (done.returncode, done.stderr) == (2, "")


@posix
@pytest.mark.parametrize("options", [[], ["--json"], ["--verbose"]])
def test_what_was_asked_for_is_written_where_nobody_reads_the_verdict(data, tmp_path, options):
    flagging(data, {}).save(tmp_path / "report")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", stub(tmp_path / "report"), "screen", str(data), *options]
    command += ["--out", str(tmp_path / "new"), "--sarif", str(tmp_path / "new.sarif")]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=180)
    os.close(writing)
    assert done.returncode == 2
    assert "error" not in done.stderr
    assert (tmp_path / "new" / "report.html").exists()
    assert json.loads((tmp_path / "new.sarif").read_text())


@posix
@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_output_is_no_error(data, tmp_path, closed):
    flagging(data, {}).save(tmp_path / "report")
    command = [sys.executable, "-c", stub(tmp_path / "report"), "screen", str(data)]
    done = subprocess.run(command, preexec_fn=lambda: os.close(closed), capture_output=True, text=True, timeout=180)
    assert done.returncode == 0
    assert done.stderr == ""
