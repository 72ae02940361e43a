from tests.helpers.serving import served  # noqa: F401
