# COCO-Stuff 164k with 171 classes, 15 of them unseen. The data lies where MMSegmentation's guide on
# preparing data sets puts it.
data_root = "data/coco_stuff164k"
crop_size = (512, 512)
scale = (2048, 512)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=scale, keep_ratio=True),
    dict(type="LoadAnnotations"),  # after Resize: predictions are compared at the original size
    dict(type="PackSegInputs"),
]
img_ratios = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(int(2048 * r), int(512 * r)), keep_ratio=True)
                for r in img_ratios
            ],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ],
    ),
]

dataset_train = dict(
    type="COCOStuffDataset",
    data_root=data_root,
    data_prefix=dict(img_path="images/train2017", seg_map_path="annotations/train2017"),
)
dataset_val = dict(
    type="COCOStuffDataset",
    data_root=data_root,
    data_prefix=dict(img_path="images/val2017", seg_map_path="annotations/val2017"),
    test_mode=True,
)

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="ReproducibleInfiniteSampler", shuffle=True),
    dataset=dict(
        type="ZeroShotDataset",
        setting="inductive",
        dataset=dataset_train,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="ZeroShotDataset", dataset=dataset_val, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="ZeroShotIoUMetric")
test_evaluator = val_evaluator
