"""Print a config with every argument filled in; without CONFIG, list the installed configs.

The printed config needs nothing of this project's own running code: mmengine's ``Runner`` and
mmseg's tools build it as it stands.
"""

from __future__ import annotations

from .config import config_names, load_config
from .options import add_cfg_options, new_parser


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("config", nargs="?", help="config file, or the name of an installed one")
    add_cfg_options(parser)
    args = parser.parse_args()
    if args.config is None:
        print("\n".join(config_names()))
    else:
        cfg = load_config(args)
        from mmseg_otseg.engine import resolve

        print(resolve(cfg).pretty_text)
