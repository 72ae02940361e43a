"""A runner with a separate work folder for each config."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.config import Config
from mmseg.registry import RUNNERS

from mmseg_otseg.engine.console import ConsoleRunner
from mmseg_otseg.engine.run_folder import default_work_dir


@RUNNERS.register_module()
class ConfigFolderRunner(ConsoleRunner):
    """A :class:`ConsoleRunner` whose work folder is by default :func:`default_work_dir`.

    mmseg's own tools, and therefore ``mim train``, name the folder after the config's file name
    only. They build the runner that a config names in ``runner_type``. Nothing else differs.
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> ConsoleRunner:
        """Build the runner; a work folder set by an option or in the config is kept."""
        file = getattr(cfg, "filename", None)
        if file is not None:
            mmseg_default = os.path.join("./work_dirs", Path(file).stem)
            if cfg.get("work_dir") in (None, mmseg_default):
                cfg.work_dir = default_work_dir(file)
        return super().from_cfg(cfg)
