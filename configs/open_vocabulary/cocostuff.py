# COCO-Stuff 164k, 171 classes.
_base_ = "../_base_/datasets/open_vocabulary.py"

title = "COCO-Stuff"
prepare = "see MMSegmentation's guide on preparing datasets"
data_root = "data/coco_stuff164k"
test_dataloader = dict(
    dataset=dict(
        dataset=dict(
            data_root=data_root,
            data_prefix=dict(img_path="images/val2017", seg_map_path="annotations/val2017"),
            seg_map_suffix="_labelTrainIds.png",
        )
    )
)

protocols = dict(
    trained=dict(classes="cocostuff"),
    openseg=dict(classes="openseg/cocostuff"),
    training_free=dict(classes="sclip/cocostuff"),
)
