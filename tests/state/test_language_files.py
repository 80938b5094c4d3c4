from importlib.resources import files

import pytest
import yaml

from persona_mcp.state.language_files import FOLDER, read_language_file


@pytest.mark.parametrize("name", ["anchors", "cues", "importance"])
def test_both_readers_of_yaml_read_the_same(name: str) -> None:
    text = (files("persona_mcp.state") / FOLDER / f"{name}.en.yaml").read_text("utf-8")

    assert read_language_file(name, "en") == yaml.safe_load(text)


def test_a_language_that_does_not_come_along_is_not_found() -> None:
    with pytest.raises(FileNotFoundError):
        read_language_file("cues", "tlh")
