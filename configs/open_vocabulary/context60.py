# Pascal Context, 59 classes and the background: what is unlike all classes.
_base_ = "../_base_/datasets/open_vocabulary.py"

title = "Context60"
prepare = "see MMSegmentation's guide on preparing datasets"
data_root = "data/VOCdevkit/VOC2010"
test_dataloader = dict(
    dataset=dict(
        dataset=dict(
            data_root=data_root,
            data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassContext"),
            ann_file="ImageSets/SegmentationContext/val.txt",
            reduce_zero_label=True,
        )
    )
)

protocols = dict(
    trained=dict(classes="catseg/context59", background="threshold", none_below=0.5),
    training_free=dict(classes="sclip/context60", background="names", none_below=0.1),
)
