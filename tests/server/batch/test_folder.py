"""The folder of a batch: whose it is, and that no file of it is ever half there."""

from pathlib import Path

import pytest

from persona_mcp.server.batch.folder import (
    MANIFEST,
    SPEC,
    begin_folder,
    open_folder,
    write_file,
)
from persona_mcp.state.errors import Conflict, NotFound, StorageUnavailable

pytestmark = pytest.mark.anyio

ONE, OTHER = b"name: one\n", b"name: other\n"


async def begun(path: Path, spec: bytes = ONE, **how: bool) -> bool:
    async with begin_folder(path, spec, **how) as folder:
        return folder.finished


async def test_a_new_folder_is_made_with_the_specification_in_it(tmp_path: Path) -> None:
    finished = await begun(tmp_path / "a" / "b")

    assert not finished
    assert (tmp_path / "a" / "b" / SPEC).read_bytes() == ONE


async def test_what_was_begun_is_gone_on_with_only_if_that_is_wished(tmp_path: Path) -> None:
    async with begin_folder(tmp_path, ONE) as folder:
        await folder.store.note_fact("begun", {})

    with pytest.raises(Conflict, match="add --resume"):
        await begun(tmp_path)

    assert await begun(tmp_path, resume=True) is False


async def test_a_finished_batch_is_found_finished(tmp_path: Path) -> None:
    await begun(tmp_path)
    (tmp_path / MANIFEST).write_text("{}")

    assert await begun(tmp_path) is True
    async with open_folder(tmp_path) as folder:
        folder.reopen()
        assert not folder.finished


async def test_another_batch_is_left_alone_unless_it_is_to_be_thrown_away(tmp_path: Path) -> None:
    async with begin_folder(tmp_path, ONE) as folder:
        await folder.store.note_fact("settings", {"of": "one"})
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(Conflict, match="holds another batch"):
        await begun(tmp_path, OTHER, resume=True)
    assert (tmp_path / SPEC).read_bytes() == ONE

    async with begin_folder(tmp_path, OTHER, force=True) as folder:
        kept = await folder.store.fact("settings")

    assert (kept, folder.finished) == (None, False)
    assert (tmp_path / SPEC).read_bytes() == OTHER


async def test_a_batch_that_never_began_makes_room_for_another(tmp_path: Path) -> None:
    async with begin_folder(tmp_path, ONE) as folder:
        await folder.store.counts()  # the store is there, and empty
    (tmp_path / "cast.json").write_text("{}")

    assert await begun(tmp_path, OTHER) is False

    assert (tmp_path / SPEC).read_bytes() == OTHER
    assert not (tmp_path / "cast.json").exists()


async def test_what_a_killed_process_left_half_written_is_in_nobodys_way(tmp_path: Path) -> None:
    for name in ("spec.yaml.new", "run.lock"):
        (tmp_path / name).write_text("")

    assert await begun(tmp_path, resume=True) is False

    assert not (tmp_path / "spec.yaml.new").exists()


@pytest.mark.parametrize("force", [False, True])
async def test_files_that_are_called_as_a_batchs_are_no_batch(tmp_path: Path, force: bool) -> None:
    (tmp_path / "report.html").write_text("mine")
    (tmp_path / "forks").mkdir()

    with pytest.raises(Conflict, match=r"other files \(forks\)"):
        await begun(tmp_path, force=force)

    assert (tmp_path / "report.html").read_text() == "mine"


async def test_a_batch_whose_specification_is_gone_is_not_thrown_away(tmp_path: Path) -> None:
    async with begin_folder(tmp_path, ONE) as folder:
        await folder.store.note_fact("begun", {"of": "one"})
    (tmp_path / SPEC).unlink()

    with pytest.raises(Conflict, match=r"another batch \(its spec\.yaml is gone\)"):
        await begun(tmp_path, OTHER)

    async with begin_folder(tmp_path, OTHER, force=True) as folder:
        assert await folder.store.fact("begun") is None


async def test_force_throws_a_batch_away_whose_store_is_damaged(tmp_path: Path) -> None:
    (tmp_path / SPEC).write_bytes(ONE)
    (tmp_path / "run.db").write_bytes(b"no database")
    with pytest.raises(StorageUnavailable, match="damaged"):
        await begun(tmp_path, resume=True)

    async with begin_folder(tmp_path, ONE, force=True) as folder:
        assert await folder.store.fact("begun") is None


async def test_the_store_of_a_finished_batch_is_not_made_anew(tmp_path: Path) -> None:
    await begun(tmp_path)
    (tmp_path / MANIFEST).write_text("{}")
    (tmp_path / "run.db").unlink(missing_ok=True)

    with pytest.raises(NotFound, match=r"no run\.db in"):
        await begun(tmp_path, resume=True)
    with pytest.raises(NotFound, match=r"no run\.db in"):
        async with open_folder(tmp_path):
            pass

    assert not (tmp_path / "run.db").exists()


async def test_force_throws_nothing_away_where_no_batch_is(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text("Chapter one")
    (tmp_path / "forks").mkdir()
    (tmp_path / "forks" / "mine.txt").write_text("kept")

    with pytest.raises(Conflict, match=r"other files \(novel.txt\)"):
        await begun(tmp_path, force=True)

    assert (tmp_path / "forks" / "mine.txt").read_text() == "kept"


async def test_a_folder_with_other_files_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text("Chapter one")

    with pytest.raises(Conflict, match=r"other files \(novel.txt\)"):
        await begun(tmp_path)

    assert [path.name for path in tmp_path.iterdir() if path.name != "run.lock"] == ["novel.txt"]


async def test_throwing_a_batch_away_leaves_other_files_alone(tmp_path: Path) -> None:
    await begun(tmp_path)
    (tmp_path / "novel.txt").write_text("Chapter one")

    await begun(tmp_path, OTHER, force=True)

    assert (tmp_path / "novel.txt").read_text() == "Chapter one"


async def test_two_do_not_work_in_one_folder(tmp_path: Path) -> None:
    async with begin_folder(tmp_path, ONE):
        with pytest.raises(Conflict, match="another process"):
            await begun(tmp_path, resume=True)

    assert await begun(tmp_path, resume=True) is False


async def test_a_place_that_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageUnavailable, match="'file' cannot be used"):
        await begun(tmp_path / "file")
    with pytest.raises(NotFound, match="no batch in 'nowhere'"):
        async with open_folder(tmp_path / "nowhere"):
            pass


async def test_new_outputs_take_the_place_of_old_ones_together(tmp_path: Path) -> None:
    async with begin_folder(tmp_path, ONE) as folder:
        for name in ("report.html", "openai.jsonl"):
            (tmp_path / name).write_text("old")

        with pytest.raises(RuntimeError), folder.beside() as new:
            (new / "report.html").write_text("half")
            raise RuntimeError
        assert (tmp_path / "report.html").read_text() == "old"
        with folder.beside() as new:
            (new / "report.html").write_text("new")

    assert (tmp_path / "report.html").read_text() == "new"
    assert not (tmp_path / "openai.jsonl").exists()
    assert not (tmp_path / ".new").exists()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def pieces() -> object:
        yield b"new "
        raise RuntimeError

    write_file(tmp_path / "a", [b"old"])

    with pytest.raises(RuntimeError):
        write_file(tmp_path / "a", pieces())  # type: ignore[arg-type]

    assert (tmp_path / "a").read_bytes() == b"old"
