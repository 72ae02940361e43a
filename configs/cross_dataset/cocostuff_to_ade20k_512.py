# A checkpoint of configs/otseg/cocostuff_512.py tested on the 150 classes of ADE20K, without
# training: tools/test.py THIS_FILE CHECKPOINT
_base_ = [
    "../_base_/models/otseg.py",
    "../_base_/datasets/ade20k_512.py",
    "../_base_/schedules/schedule_20k.py",
    "../_base_/default_runtime.py",
]

# No class of this data set is held back.
model = dict(
    split=dict(classes="ade20k"),
    backbone=dict(visual_prompts=dict(num_tokens=100)),
    decode_head=dict(seen_bias=0.0),
)

# Nothing here trains.
train_dataloader = None
train_cfg = None
optim_wrapper = None
param_scheduler = None
