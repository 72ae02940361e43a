# Pascal VOC 2012, 20 classes and the background, which has the names of what else there is in the
# 59 classes of Pascal Context (PAS-20b of CAT-Seg).
_base_ = "../_base_/datasets/open_vocabulary.py"

title = "VOC20b"
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
    trained=dict(classes="catseg/voc20b", background="names"),
)
