"""Every error says in its own words what it means; that the drawn tree is right, the unit tests check."""

import inspect

import pytest

from aion_es import errors

ERRORS = [
    cls
    for cls in vars(errors).values()
    if inspect.isclass(cls)
    and issubclass(cls, errors.AionError)
    and cls.__module__.startswith(errors.__name__)
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_an_error_says_what_it_means(error: type[errors.AionError]) -> None:
    own = vars(error).get("__doc__")
    assert own, "no docstring of its own"
    first = own.strip().splitlines()[0]
    assert len(first.split()) >= 4, f"says too little: {first!r}"
    assert first.endswith("."), f"is no sentence: {first!r}"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_an_error_documents_the_fields_that_its_name_does_not_explain(
    error: type[errors.AionError],
) -> None:
    if "Attributes:" not in str(error.__doc__):
        return  # nothing is claimed, so nothing can be wrong
    named = {
        line.split(":")[0].strip()
        for line in inspect.getdoc(error).split("Attributes:")[1].splitlines()  # type: ignore[union-attr]  # it has one
        if line.startswith("    ") and not line.startswith("     ")
    }
    fields = set(inspect.signature(error.__init__).parameters) | {"code"}
    assert named <= fields, f"documents fields that do not exist: {named - fields}"
