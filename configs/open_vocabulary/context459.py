# Pascal Context, all 459 classes (PC-459); its label files have 16 bits.
_base_ = "../_base_/datasets/open_vocabulary.py"

title = "Context459"
prepare = "run `mmseg-otseg convert-data context459`"
data_root = "data/VOCdevkit/VOC2010"
test_dataloader = dict(
    dataset=dict(
        dataset=dict(
            data_root=data_root,
            data_prefix=dict(
                img_path="JPEGImages", seg_map_path="annotations_detectron2/pc459_val"
            ),
            ann_file="ImageSets/SegmentationContext/val.txt",
            seg_map_suffix=".tif",
            ignore_index=65535,
        )
    )
)

protocols = dict(
    trained=dict(classes="catseg/context459"),
    openseg=dict(classes="openseg/context459"),
)
