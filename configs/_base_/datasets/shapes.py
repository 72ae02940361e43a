# Procedural scenes of colored shapes: 20 classes, 5 of them unseen. Nothing is read from disk.
# Choices are made on val; test is for reported figures only.
size = 64  # pixels a side, those of CLIP

train_pipeline = [
    dict(type="LoadShapesScene"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadShapesScene"),
    dict(type="Resize", scale=(size, size), keep_ratio=True),  # images that are not scenes
    dict(type="PackSegInputs"),
]
tta_pipeline = [
    dict(type="LoadShapesScene"),
    dict(type="Resize", scale=(size, size), keep_ratio=True),
    dict(
        type="TestTimeAug",
        transforms=[
            # The first view is the one with the labels, so it stays as it is.
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="PackSegInputs")],
        ],
    ),
]

train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type="ReproducibleInfiniteSampler", shuffle=True),
    dataset=dict(
        type="ZeroShotDataset",
        setting="inductive",
        dataset=dict(type="ShapesDataset", subset="train", length=4000, size=size),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=25,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ZeroShotDataset",
        dataset=dict(type="ShapesDataset", subset="val", length=400, size=size, test_mode=True),
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=25,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ZeroShotDataset",
        dataset=dict(type="ShapesDataset", subset="test", length=1000, size=size, test_mode=True),
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type="ZeroShotIoUMetric")
test_evaluator = val_evaluator
