"""Items of the page are read once, and their pictures keep within a number of bytes."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from jaxcurate.report.items import LARGE, SMALL, read_items, url


def read(contents, groups, n=2000, links=lambda rows: [None] * len(rows)):
    is_kept = np.arange(n) % 2 == 0
    return read_items(contents, links, np.arange(n).astype("U"), is_kept, groups)


def decoded(item):
    data = base64.b64decode(item.picture.removeprefix("data:image/webp;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)))


def test_every_row_is_read_once_and_shown_at_its_sizes():
    asked = []

    def contents(rows):
        asked.append(rows)
        return [np.full((8, 8, 3), row % 251, np.uint8) for row in rows]

    groups = [(LARGE, np.array([5, 3, 5, 1999])), (SMALL, np.arange(1500)[::-1])]
    large, small = read(contents, groups)
    rows = np.concatenate(asked)
    assert np.array_equal(rows, [*range(1500), 1999])
    assert max(map(len, asked)) <= 512
    assert list(large) == [3, 5, 1999] and list(small) == list(range(1500))
    for shown, display in ((large, 120), (small, 64)):
        for row, item in shown.items():
            assert (item.row, item.id, item.kept) == (row, str(row), row % 2 == 0)
            assert item.display == display and item.pixelated
    for row, item in large.items():
        assert np.array_equal(decoded(item), np.full((8, 8, 3), row % 251))


def test_pictures_are_reduced_and_true_to_their_colors():
    half = np.zeros((400, 400, 3), np.uint8)
    half[:, 200:] = 250, 20, 60
    (large,), (small,) = (
        shown.values() for shown in read(lambda rows: [half], [(LARGE, [7]), (SMALL, [7])])
    )
    assert decoded(large).shape == (160, 160, 3) and decoded(small).shape == (80, 80, 3)
    for item in (large, small):
        side = len(decoded(item))
        assert not item.pixelated
        assert np.abs(decoded(item)[:, : side // 2 - 4].astype(int)).max() <= 12
        assert np.abs(decoded(item)[:, side // 2 + 4 :].astype(int) - (250, 20, 60)).max() <= 12


def test_pictures_that_compress_badly_keep_within_the_bytes():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (32, 96, 96, 3), np.uint8)
    few = LARGE._replace(n_bytes=140_000)
    (shown,) = read(lambda rows: list(noise[rows]), [(few, np.arange(32))])
    assert 30_000 < sum(len(item.picture) for item in shown.values()) <= 140_000
    (last,) = read(lambda rows: list(noise[rows]), [(few._replace(n_bytes=1), np.arange(32))])
    assert all(len(decoded(item)) == few.steps[-1][0] for item in last.values())


def test_only_the_beginning_of_a_text_is_shown_at_once():
    text = "a\u202eb \n" + "word " * 1000
    large, small = read(lambda rows: [text], [(LARGE, [0]), (SMALL, [0])])
    line = f"a\N{REPLACEMENT CHARACTER}b {'word ' * 40}"
    assert large[0].beginning == line[:200] + "\N{HORIZONTAL ELLIPSIS}"
    assert large[0].text.startswith("a\N{REPLACEMENT CHARACTER}b \nword")
    assert large[0].n_more == len(text) - 2000 and large[0].picture is None
    assert small[0].text is None and small[0].beginning.endswith("\N{HORIZONTAL ELLIPSIS}")
    (short,) = read(
        lambda rows: ["two\nlines \N{WOMAN}\u200d\N{PERSONAL COMPUTER}"], [(LARGE, [0])]
    )
    assert short[0].beginning == "two lines \N{WOMAN}\u200d\N{PERSONAL COMPUTER}"
    assert (short[0].text, short[0].n_more) == (None, 0)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("/a/b c#1?%.png", "file:///a/b%20c%231%3F%25.png"),
        ("/a/\udcff\".png", "file:///a/%FF%22.png"),
        ("https://example.org/?a=1", "https://example.org/?a=1"),
        ("javascript://%0aalert(1)", None),
        ("data://text/html,<script>", None),
        ("https://[", None),
        ("", None),
        (None, None),
    ],
)  # fmt: skip
def test_links_are_only_of_kinds_that_open_a_file(place, expected):
    assert url(place) == expected
    assert (url("javascript:alert(1)") or "").startswith("file:///")


def test_items_that_can_no_longer_be_read_keep_their_id_and_link():
    (shown,) = read(lambda rows: [None] * len(rows), [(LARGE, [4])], links=lambda rows: ["/a"])
    assert shown[4].picture is shown[4].beginning is None
    assert (shown[4].id, shown[4].link) == ("4", "file:///a")
