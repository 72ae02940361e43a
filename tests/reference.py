from tests.helpers.reference import Reference  # noqa: F401
