# A checkpoint of configs/otseg/context_480.py tested on the 171 classes of COCO-Stuff 164k,
# without training: tools/test.py THIS_FILE CHECKPOINT
_base_ = [
    "../_base_/models/otseg.py",
    "../_base_/datasets/cocostuff_512.py",
    "../_base_/schedules/schedule_20k.py",
    "../_base_/default_runtime.py",
]

# No class of this data set is held back.
model = dict(
    neck=dict(text=dict(split=dict(classes="cocostuff"))),
    decode_head=dict(num_classes=171, seen_bias=0.0),
)
val_dataloader = dict(dataset=dict(split=dict(_delete_=True, classes="cocostuff")))
test_dataloader = dict(dataset=dict(split=dict(_delete_=True, classes="cocostuff")))

# Nothing here trains.
train_dataloader = None
train_cfg = None
optim_wrapper = None
param_scheduler = None
