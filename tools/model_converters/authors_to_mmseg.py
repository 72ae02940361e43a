"""Convert a checkpoint of OTSeg's or ZegCLIP's released code for this package's configs."""

from __future__ import annotations

from mmseg_otseg_tools.cli import new_parser, run


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("src", help="the authors' checkpoint")
    parser.add_argument(
        "dst",
        help="the checkpoint to write, for tools/test.py with configs/otseg or configs/zegclip",
    )
    args = parser.parse_args()
    from mmengine.logging import MMLogger

    from mmseg_otseg.converters.authors_checkpoint import convert_authors_checkpoint

    MMLogger.get_instance("convert")
    convert_authors_checkpoint(args.src, args.dst)


if __name__ == "__main__":
    run(main)
