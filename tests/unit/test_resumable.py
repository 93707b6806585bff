"""Output folders that an interrupted call left behind."""

import pytest

from ofa.errors import UserError
from ofa.io.resumable import ResumableFolder, read_manifest

NAMES = ["1.png", "2.png"]


def folder_of(path, plan: str) -> ResumableFolder:
    return ResumableFolder(path, plan, "ofa tokenizer decode", endings=(".png",))


def kill_after_the_first_file(path) -> None:
    """As SIGKILL leaves it: the first file is complete, the manifest does not list it."""
    manifest = []

    def contents():
        yield b"first"
        manifest.append((path / "manifest.json").read_text())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder_of(path, "a").write_files(NAMES, contents())
    (path / "manifest.json").write_text(manifest[0])


def test_files_that_a_killed_call_did_not_list_yet_go_with_another_plan(tmp_path):
    kill_after_the_first_file(tmp_path)
    folder_of(tmp_path, "b").write_files(NAMES[::-1], [b"third", b"fourth"])
    assert [(tmp_path / name).read_bytes() for name in NAMES] == [b"fourth", b"third"]


def test_what_another_plan_replaces_is_named(tmp_path, caplog):
    folder_of(tmp_path, "a").write_files(NAMES, [b"first", b"second"])
    folder_of(tmp_path, "a").write_files(NAMES, [b"first", b"second"])
    assert not caplog.messages
    folder_of(tmp_path, "b").write_files(NAMES[:1], [b"third"])
    assert caplog.messages == [
        f"{tmp_path}: 1.png, 2.png of an earlier call with other options or files are written anew"
    ]


def test_an_id_that_is_half_a_character_comes_back_from_the_manifest(tmp_path):
    out = folder_of(tmp_path, "a")
    out.note(images=[{"id": "\ud83d", "text": "é"}])
    assert read_manifest(tmp_path / "manifest.json")["images"] == [{"id": "\ud83d", "text": "é"}]
    assert "é" in (tmp_path / "manifest.json").read_text()


def test_a_file_of_others_in_place_of_one_that_was_begun_stays(tmp_path):
    kill_after_the_first_file(tmp_path)
    (tmp_path / "2.png.part").write_bytes(b"sec")
    (tmp_path / "2.png").write_bytes(b"of others")
    with pytest.raises(UserError, match="expected no such file"):
        folder_of(tmp_path, "b").write_files(NAMES, [b"third", b"fourth"])
    assert (tmp_path / "2.png").read_bytes() == b"of others"
