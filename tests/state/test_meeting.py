from dataclasses import fields

import pytest
from pydantic import ValidationError

from persona_mcp.state.appraisal import Appraisal
from persona_mcp.state.meeting import GivenAppraisal


def test_an_appraisal_is_given_on_the_axes_that_there_are() -> None:
    assert list(GivenAppraisal.model_fields) == [axis.name for axis in fields(Appraisal)]
    assert Appraisal(**GivenAppraisal().model_dump()) == Appraisal()


@pytest.mark.parametrize("axis", list(GivenAppraisal.model_fields))
def test_what_is_given_has_the_ranges_that_the_laws_rest_on(axis: str) -> None:
    lowest = 0.0 if axis == "disclosure" else -1.0
    for value in (lowest, 1.0):
        Appraisal(**GivenAppraisal(**{axis: value}).model_dump())
    for value in (lowest - 0.01, 1.01, float("nan"), float("inf")):
        with pytest.raises(ValidationError):
            GivenAppraisal(**{axis: value})
