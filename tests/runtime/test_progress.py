import time

from jaxcurate.runtime.progress import Progress


def test_lines_in_a_log(capsys):
    progress = Progress()
    progress.line("hello")
    for done in range(101):
        progress("steps", done, 100)
    progress("others", 5, 5)
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "hello"
    assert len(err) == 3  # fast work is told once, when it is done
    assert err[1].startswith("  steps: 100/100, ")
    assert err[1].endswith(" a second, 0 s left")
    assert err[2].startswith("  others: 5/5, ")


def test_rate_and_time_left(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    progress = Progress()
    progress("steps", 0, 60)
    for done in range(1, 41):
        now[0] += 1.0
        progress("steps", done, 60)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "  steps: 11/60, 1 a second, 49 s left"
    assert len(lines) == 3


def test_the_rate_counts_the_time_of_the_first_steps(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    progress = Progress()
    with progress.timed("embed"):
        now[0] += 4.0
        progress("embedding", 2000, 2000)
        now[0] += 2.0
        progress("searching", 5, 5)
        now[0] += 9.0
        progress.line("done")
        now[0] += 1.0
        progress("writing", 5, 5)
    assert capsys.readouterr().err.splitlines() == [
        "  embedding: 2000/2000, 500 a second, 0 s left",
        "  searching: 5/5, 2.5 a second, 0 s left",
        "done",
        "  writing: 5/5, 5 a second, 0 s left",
    ]


def test_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress = Progress()
    for done in range(4):
        progress("steps", done, 3)
    assert "steps" in capsys.readouterr().err


def test_quiet_says_nothing(capsys):
    progress = Progress(quiet=True)
    progress.line("hello")
    progress("steps", 1, 1)
    assert capsys.readouterr().err == ""


def test_where_the_time_went():
    progress = Progress(quiet=True)
    with progress.timed("embed"):
        time.sleep(0.02)
    with progress.timed("embed"):
        pass
    with progress.timed("cluster"):
        pass
    assert progress.seconds["embed"] >= 0.02
    lines = progress.where_time_went().splitlines()
    assert [line.split()[0] for line in lines] == ["embed", "cluster", "in"]
