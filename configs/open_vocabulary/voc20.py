# Pascal VOC 2012, 20 classes; the background is ignored (PAS-20, VOC20).
_base_ = "../_base_/datasets/open_vocabulary.py"

title = "VOC20"
prepare = "see MMSegmentation's guide on preparing datasets"
data_root = "data/VOCdevkit/VOC2012"
test_dataloader = dict(
    dataset=dict(
        dataset=dict(
            data_root=data_root,
            data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
            ann_file="ImageSets/Segmentation/val.txt",
            reduce_zero_label=True,
        )
    )
)

protocols = dict(
    trained=dict(classes="voc"),
    openseg=dict(classes="openseg/voc20"),
    training_free=dict(classes="sclip/voc20"),
)
