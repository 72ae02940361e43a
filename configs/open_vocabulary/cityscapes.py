# Cityscapes, 19 classes.
_base_ = "../_base_/datasets/open_vocabulary.py"

title = "Cityscapes"
prepare = "see MMSegmentation's guide on preparing datasets"
data_root = "data/cityscapes"
test_dataloader = dict(
    dataset=dict(
        dataset=dict(
            data_root=data_root,
            data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
            img_suffix="_leftImg8bit.png",
            seg_map_suffix="_gtFine_labelTrainIds.png",
        )
    )
)

protocols = dict(
    trained=dict(classes="mmseg/cityscapes"),
    training_free=dict(classes="sclip/cityscapes", scale=(2048, 560)),
)
