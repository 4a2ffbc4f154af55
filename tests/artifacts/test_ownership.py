"""Ownership: a folder is replaced only if jaxcurate wrote it and knows all of its files."""

import json
import os

import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate.artifacts import exchange, files, folders
from jaxcurate.checks import InputError


def write(path, kind="test", **about):
    with folders.new_folder(path, about, kind) as folder:
        folder.save_array("a.npy", np.arange(3))


def everything_in(path):
    return {file: file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def a_folder_of_the_users(path):
    path.mkdir()
    (path / "thesis.txt").write_text("ten years")


def a_file(path):
    path.write_text("mine")


def a_link_to_a_folder(path):
    write(path.parent / "elsewhere")
    path.symlink_to(path.parent / "elsewhere")


def a_dangling_link(path):
    path.symlink_to(path.parent / "nowhere")


def a_card_of_another_program(path):
    path.mkdir()
    (path / "card.json").write_text('{"files": {}, "name": "Ada"}')


def a_damaged_card(path):
    write(path)
    card = path / "card.json"
    card.write_text(card.read_text().replace("kind", "kinb"))


def another_kind(path):
    write(path, "tree")


def a_file_more(path):
    write(path)
    (path / "labels.csv").write_text("a,b")


def a_hidden_file_more(path):
    write(path)
    (path / "below").mkdir()
    (path / "below/.notes").write_text("")


@pytest.mark.parametrize(
    ("stands", "word"),
    [
        (a_folder_of_the_users, "was not written by jaxcurate"),
        (a_file, "is a file in the place of a folder"),
        (a_link_to_a_folder, "is a link"),
        (a_dangling_link, "is a link"),
        (a_card_of_another_program, "was not written by jaxcurate"),
        (a_damaged_card, "card.json is damaged"),
        (another_kind, "as a tree, not as a test"),
        (a_file_more, r"labels\.csv is not jaxcurate's"),
        (a_hidden_file_more, r"\.notes is not jaxcurate's"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_ours_is_left(tmp_path, stands, word):
    stands(tmp_path / "out")
    before = everything_in(tmp_path)
    with pytest.raises(InputError, match=word):
        write(tmp_path / "out")
    assert everything_in(tmp_path) == before


def test_what_is_ours_is_replaced(tmp_path):
    path = tmp_path / "out"
    path.mkdir()  # empty: there is nothing to lose
    write(path, x=1)
    write(path, x=2)
    assert folders.check_files(path)["x"] == 2
    (path / "a.npy").write_bytes(b"damaged")
    write(path, x=3)
    (path / "a.npy").unlink()
    write(path, x=4)
    assert folders.check_files(path)["x"] == 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_another_run_is_not_replaced(tmp_path):
    path = tmp_path / "out"
    write(path, run="1" * 16)
    with pytest.raises(InputError, match="by another run"):
        write(path, run="2" * 16)
    write(path, run="1" * 16)
    write(path)  # by hand, with the library
    with pytest.raises(InputError, match=r"another run \(of the library\)"):
        write(path, run="1" * 16)


def test_folders_of_older_releases_are_replaced(tmp_path):
    """Their cards have no writer, kind or run, but a stage or a checksum."""
    path = tmp_path / "out"
    write(path, run="1" * 16)
    card = json.loads((path / "card.json").read_text())
    older = {"stage": "cluster", "files": card["files"]}
    (path / "card.json").write_text(json.dumps(older))
    write(path, run="1" * 16)


def test_work_in_a_folder_below_is_not_replaced(tmp_path):
    def grown(n):
        with (
            folders.new_folder(tmp_path / "grown", {}, "grown") as folder,
            folder.subfolder("tree", {"n": n}, "tree") as below,
        ):
            below.save_array("a.npy", np.arange(n))

    grown(1)
    grown(2)
    write(tmp_path / "grown/tree", "tree")
    with pytest.raises(InputError, match="has been worked on since"):
        grown(3)
    assert folders.check_files(tmp_path / "grown/tree").get("n") is None


def test_what_somebody_adds_meanwhile_is_put_back(tmp_path, monkeypatch):
    path = tmp_path / "out"
    write(path, x=1)
    swap = exchange.swap

    def swap_late(fresh, target, aside):
        if target.name == "out" and not (target / "notes").exists():
            (target / "notes").write_text("just now")
        swap(fresh, target, aside)

    monkeypatch.setattr(exchange, "swap", swap_late)
    with pytest.raises(InputError, match="notes is not jaxcurate's"):
        write(path, x=2)
    assert (path / "notes").read_text() == "just now"
    assert json.loads((path / "card.json").read_text())["x"] == 1


def test_a_card_never_calls_whole_what_is_not(tmp_path):
    """Another program removes, cuts or adds a file while the folder is written."""
    cut = lambda file: file.write_bytes(file.read_bytes()[:-1])
    for change in (os.unlink, cut, lambda file: (file.parent / "more").write_text("")):
        with (
            pytest.raises(files.DamagedError, match="was changed by another program"),
            folders.new_folder(tmp_path / "out", {}, "test") as folder,
        ):
            folder.save_array("a.npy", np.arange(3))
            folder.save_array("b.npy", np.arange(3))
            change(folder.path / "a.npy")
    assert list(tmp_path.iterdir()) == []


def test_the_checksum_is_of_what_was_written(tmp_path):
    """A change of content between writing and the card, at the same size, is found by reading."""
    with folders.new_folder(tmp_path / "out", {}, "test") as folder:
        folder.save_array("a.npy", np.zeros(3))
        content = (folder.path / "a.npy").read_bytes()
        (folder.path / "a.npy").write_bytes(content[:-1] + b"x")
    with pytest.raises(files.DamagedError, match=r"a\.npy is damaged"):
        folders.check_files(tmp_path / "out")


def test_saving_a_tree_replaces_no_folder_of_the_users(tmp_path):
    tree = jc.ClusterTree.from_labels([np.array([0, 1, 1])])
    a_folder_of_the_users(tmp_path / "out")
    a_file(tmp_path / "file")
    for name in ("out", "file"):
        with pytest.raises(InputError, match="move it away"):
            tree.save(tmp_path / name)
    assert (tmp_path / "out/thesis.txt").read_text() == "ten years"
    jc.make_pool(np.eye(3)).save(tmp_path / "pool")
    with pytest.raises(InputError, match="as a pool, not as a tree"):
        tree.save(tmp_path / "pool")
    tree.save(tmp_path / "tree")
    tree.save(tmp_path / "tree")


def test_the_home_directory_is_meant(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write("~/out")
    assert (tmp_path / "out/card.json").exists()


def test_a_text_of_another_program_is_left(tmp_path):
    path = tmp_path / "report.html"
    ours = lambda text: text.startswith("ours")
    path.write_text("theirs")
    with pytest.raises(InputError, match="was not written by jaxcurate"):
        files.write_text(path, "ours", ours)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="was not written by jaxcurate"):
        files.write_text(path, "ours", ours)
    path.unlink()
    files.write_text(path, "ours 1", ours)
    files.write_text(path, "ours 2", ours)
    assert path.read_text() == "ours 2"
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "link", "folder"):
        with pytest.raises(InputError, match="move it away"):
            files.write_text(tmp_path / name, "ours", ours)
