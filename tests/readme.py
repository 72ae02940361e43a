from tests.helpers.readme import README, blocks, prose, rows, spans  # noqa: F401
