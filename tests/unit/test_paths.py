"""File names that data gives: below their folder, or refused."""

import os
import socket

import pytest

from ofa.errors import UserError
from ofa.io.atomic import replacing
from ofa.io.paths import LONGEST, delete_below, path_below, path_within


@pytest.mark.parametrize(
    "name",
    [
        "a.jpg",
        "val2014/a.jpg",
        "./a.jpg",
        "a..b",
        ".hidden",
        "図 1.png",
        "COCO:17",
        "console.txt",
        "..a",
    ],
)
def test_names_below_the_folder_are_joined_to_it(tmp_path, name):
    assert path_below(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        ".",
        "..",
        "../a",
        "a/../../b",
        "a/..",
        "/etc/passwd",
        "//host/a",
        "\\\\host\\a",
        "..\\a",
        "C:\\a",
        "c:a",
        "~/a",
        "a\0b",
        "a\nb",
        "a\x85b",
        "a\u2028b",
        "\ud800",
        "a//b",
        "a/",
        "a/ /b",
        "...",
        "NUL",
        "con.txt",
        "x/COM1.tar",
        "lpt9",
        "a/" * 20 + "a",
        None,
        7,
        True,
        b"a",
        ["a"],
    ],
)
def test_other_names_are_refused_in_one_line_with_the_place(tmp_path, name):
    expected = r"^rows.json:3: expects the name of a file below .*, found "
    with pytest.raises(UserError, match=expected) as found:
        path_below(tmp_path, name, "rows.json:3")
    assert "\n" not in str(found.value) and str(found.value).isprintable()


def test_a_name_is_refused_also_where_links_may_be_followed(tmp_path):
    with pytest.raises(UserError, match="'..'"):
        path_below(tmp_path, "../a", follow_links=True)


def test_links_out_of_the_folder_are_refused_for_the_file_and_for_its_folders(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "a").write_text("a")
    (inside / "file").symlink_to(outside / "a")
    (inside / "folder").symlink_to(outside)
    (inside / "nothing").symlink_to(outside / "not there")
    (inside / "loop").symlink_to(inside / "loop")
    for name in ("file", "folder/a", "folder/new", "nothing", "folder"):
        with pytest.raises(UserError, match="a symbolic link that leads out"):
            path_below(inside, name)
    with pytest.raises(UserError, match="broken link"):
        path_below(inside, "loop")
    assert path_below(inside, "folder/a", follow_links=True).read_text() == "a"


def test_links_that_stay_in_the_folder_and_a_folder_that_is_a_link_are_fine(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a").write_text("a")
    (tmp_path / "real/b").symlink_to("a")
    (tmp_path / "link").symlink_to("real")
    assert path_below(tmp_path / "link", "b").read_text() == "a"


def test_pipes_and_sockets_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "door"))
        for name in ("pipe", "door"):
            with pytest.raises(UserError, match="a device, a pipe"):
                path_below(tmp_path, name)


@pytest.mark.parametrize("letter", ["a", "é", "図", "🔥"])
def test_names_that_are_too_long_become_short_ones_that_differ_and_stay_the_same(tmp_path, letter):
    names = [f"{letter * 300}{number}.png" for number in range(20)]
    paths = [path_below(tmp_path, f"x/{name}") for name in names]
    assert paths == [path_below(tmp_path, f"x/{name}") for name in names] and len(set(paths)) == 20
    assert all(len(path.name.encode()) <= LONGEST for path in paths)
    assert all(path.name.startswith(letter) and path.suffix == ".png" for path in paths)
    for path in paths:
        with replacing(path, "wb") as file:
            file.write(b"x")


def test_a_name_of_255_bytes_stays_and_can_be_written(tmp_path):
    path = path_below(tmp_path, "a" * 251 + ".png")
    assert path.name == "a" * 251 + ".png"
    with replacing(path) as file:
        file.write("x")
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_listed_files_are_deleted_and_missing_ones_are_no_error(tmp_path):
    for name in ("a.tar", "b.tar", "c.tar"):
        (tmp_path / name).write_text("x")
    delete_below(tmp_path, ["a.tar", "gone.tar", "b.tar"], (".tar",), "m.json")
    assert [path.name for path in tmp_path.iterdir()] == ["c.tar"]


@pytest.mark.parametrize("name", ["../thesis.tar", "thesis.tex", "link.tar", "folder.tar", 5])
def test_nothing_is_deleted_if_one_of_the_files_cannot_be_ours(tmp_path, name):
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "thesis.tar").write_text("x")
    (folder / "thesis.tex").write_text("x")
    (folder / "a.tar").write_text("x")
    (folder / "link.tar").symlink_to(folder / "a.tar")
    (folder / "folder.tar").mkdir()
    with pytest.raises(UserError, match="^m.json: expects the name of a file below"):
        delete_below(folder, ["a.tar", name], (".tar",), "m.json")
    kept = (folder / "a.tar", tmp_path / "thesis.tar", folder / "thesis.tex")
    assert all(path.exists() for path in kept)


def test_names_that_end_up_below_a_named_folder_may_come_by_any_way(tmp_path):
    folder, other = tmp_path / "in", tmp_path / "other"
    for name, roots, expected in [
        ("a/b.jpg", [], folder / "a/b.jpg"),
        ("a/../b.jpg", [], folder / "b.jpg"),
        (str(folder / "b.jpg"), [], folder / "b.jpg"),
        ("../in/b.jpg", [], folder / "b.jpg"),
        ("../other/b.jpg", [other], other / "b.jpg"),
        (f"{other}/x/b.jpg", [other], other / "x/b.jpg"),
    ]:
        assert path_within(folder, name, "", roots) == expected


@pytest.mark.parametrize("name", ["..", "../other2/a", "/etc/passwd", ".", "", "a\0b", None])
def test_names_that_end_up_elsewhere_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="^r.json:1: expects the name of a file below"):
        path_within(tmp_path / "in", name, "r.json:1", [tmp_path / "other"])
