# The 80 things of COCO and the background, which is all the rest (COCO-Object).
_base_ = "../_base_/datasets/open_vocabulary.py"

title = "COCO-Object"
prepare = "run `mmseg-otseg convert-data coco_object`"
data_root = "data/coco_stuff164k"
test_dataloader = dict(
    dataset=dict(
        dataset=dict(
            data_root=data_root,
            data_prefix=dict(img_path="images/val2017", seg_map_path="annotations/val2017"),
            seg_map_suffix="_instanceTrainIds.png",
            reduce_zero_label=True,
        )
    )
)

protocols = dict(
    trained=dict(classes="mmseg/coco_object", background="threshold", none_below=0.5),
    training_free=dict(classes="sclip/coco_object", background="names", none_below=0.1),
)
