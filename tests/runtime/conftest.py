from tests.helpers.exported import otseg  # noqa: F401  (a fixture)
