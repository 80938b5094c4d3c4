import pytest
import yaml

from persona_mcp.state.language_files import LOADER, read_language_file


@pytest.mark.parametrize("name", ["anchors", "cues", "importance"])
def test_both_readers_of_yaml_read_the_same(name: str) -> None:
    found = read_language_file(name, "en")

    assert found == yaml.load(yaml.dump(found), Loader=yaml.SafeLoader)
    assert issubclass(LOADER, (yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def test_a_language_that_does_not_come_along_is_not_found() -> None:
    with pytest.raises(FileNotFoundError):
        read_language_file("cues", "tlh")
