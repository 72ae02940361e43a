# ADE20K with 150 classes, for testing models trained on another data set: no class is held back.
# The data lies where MMSegmentation's guide on preparing data sets puts it.
data_root = "data/ade/ADEChallengeData2016"
scale = (2048, 512)

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
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ZeroShotDataset",
        dataset=dict(
            type="ADE20KDataset",
            data_root=data_root,
            data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
            test_mode=True,
        ),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="ZeroShotIoUMetric")
test_evaluator = val_evaluator
