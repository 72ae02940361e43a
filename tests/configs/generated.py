from tests.helpers.small_configs import CLIP, small, write_data  # noqa: F401
