from tests.export.conftest import otseg  # noqa: F401  the exported model
