"""The commands by name, wherever the package is installed: ``mmseg-otseg train CONFIG``."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version

from .errors import run

#: Module and purpose of each command.
COMMANDS = {
    "train": ("train", "train a model"),
    "test": ("test", "evaluate a checkpoint"),
    "benchmark": ("benchmark", "test on every open-vocabulary data set, in one table"),
    "segment": ("segment", "segment images with any class names"),
    "export": ("export", "write ONNX files that take any class names"),
    "web-demo": ("web_demo", "try a model on a page in the browser"),
    "config": ("show_config", "print a config with every argument filled in"),
    "configs": ("show_config", "list the installed configs"),
    "check-data": ("check_data", "find mistakes in your data before training"),
    "check-clip": ("check_clip", "say what a CLIP is, and whether it can segment"),
    "calibrate": ("calibrate_seen_bias", "choose the seen-class bias"),
    "show-transport": ("show_transport", "draw predictions and transport plans"),
    "flops": ("get_flops", "count parameters and multiply-adds"),
    "convert-data": ("convert_data", "write the label files of open-vocabulary data sets"),
    "convert": ("authors_to_mmseg", "convert the authors' checkpoints"),
}


def main() -> None:
    """Run the command that the first argument names, with the arguments after it."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name == "--version":
        print(f"mmseg-otseg {version('mmseg_otseg')}")
        return
    if name not in COMMANDS:
        print("usage: mmseg-otseg COMMAND [OPTIONS]; --help after a command says more\n")
        print("\n".join(f"  {command:<15} {what}" for command, (_, what) in COMMANDS.items()))
        sys.exit(0 if name in ("-h", "--help") else f"\nthere is no command {name!r}")
    sys.argv[:2] = [f"mmseg-otseg {name}"]
    run(import_module(f"mmseg_otseg_cli.{COMMANDS[name][0]}").main)


if __name__ == "__main__":
    main()
