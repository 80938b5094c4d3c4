"""Files that commands write where the user says."""

from pathlib import Path

import pytest

from persona_mcp.server.cli.files import check_file, save
from persona_mcp.state.errors import InvalidParams


@pytest.mark.parametrize(("content", "stored"), [("Ä\n", b"\xc3\x84\n"), (b"\r\n", b"\r\n")])
def test_a_file_is_replaced_and_nothing_lies_beside_it(
    tmp_path: Path, content: str | bytes, stored: bytes
) -> None:
    file = tmp_path / "out.json"
    file.write_text("before")

    check_file(file, "--output")
    save(file, content, "--output")

    assert file.read_bytes() == stored
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_no_file_is_written_to_and_not_replaced() -> None:
    null = Path("/dev/null")

    check_file(null, "--output")
    save(null, "text", "--output")

    assert null.is_char_device()


@pytest.mark.parametrize("where", [".", "missing/out.json"])
def test_where_no_file_can_be_written_the_option_and_the_cause_are_told(
    tmp_path: Path, where: str
) -> None:
    file, told = tmp_path / where, "allowed is a file that can be written"

    with pytest.raises(InvalidParams, match=f"^--svg: {told}.*directory"):
        save(file, "text", "--svg")
    with pytest.raises(InvalidParams, match=f"^--svg: {told}.*directory"):
        check_file(file, "--svg")

    assert list(tmp_path.iterdir()) == []
