# ADE20K-Full, 847 classes; its label files have 16 bits, and the short side of an image at
# most 512 pixels, as the usual preparation leaves them.
_base_ = "../_base_/datasets/open_vocabulary.py"

title = "ADE20K-847"
prepare = "run `mmseg-otseg convert-data ade20k_847`"
data_root = "data/ade/ADE20K_2021_17_01"
test_dataloader = dict(
    dataset=dict(
        dataset=dict(
            data_root=data_root,
            data_prefix=dict(
                img_path="images_detectron2/validation",
                seg_map_path="annotations_detectron2/validation",
            ),
            seg_map_suffix=".tif",
            ignore_index=65535,
        )
    )
)

protocols = dict(
    trained=dict(classes="catseg/ade20k_847"),
    openseg=dict(classes="openseg/ade20k_847"),
)
