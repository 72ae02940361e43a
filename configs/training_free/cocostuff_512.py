# The training-free model on all classes of COCO-Stuff 164k.
# Without a checkpoint: tools/test.py THIS_FILE
_base_ = ["../_base_/training_free_on_dataset.py", "../_base_/datasets/cocostuff_512.py"]

model = dict(split=dict(classes="cocostuff"))
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (2048, 336)

train_dataloader = None
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
