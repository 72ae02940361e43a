# ADE20K, 150 classes; the rest of an image is ignored.
_base_ = "../_base_/datasets/open_vocabulary.py"

title = "ADE20K-150"
prepare = "see MMSegmentation's guide on preparing datasets"
data_root = "data/ade/ADEChallengeData2016"
test_dataloader = dict(
    dataset=dict(
        dataset=dict(
            data_root=data_root,
            data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
            reduce_zero_label=True,
        )
    )
)

protocols = dict(
    trained=dict(classes="ade20k"),
    training_free=dict(classes="sclip/ade20k_150"),
)
