# The training-free model on all classes of COCO-Stuff 164k.
# Without a checkpoint: tools/test.py THIS_FILE
_base_ = [
    "../_base_/models/training_free.py",
    "../_base_/datasets/cocostuff_512.py",
    "../_base_/schedules/no_training.py",
    "../_base_/default_runtime.py",
]

model = dict(split=dict(classes="cocostuff"))
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(2048, 336), keep_ratio=True),
    dict(type="LoadAnnotations"),  # after Resize: predictions are compared at the original size
    dict(type="PackSegInputs"),
]

train_dataloader = None
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
