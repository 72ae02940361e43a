# A checkpoint of configs/otseg/cocostuff_512.py tested on the 59 classes of Pascal Context,
# without training: tools/test.py THIS_FILE CHECKPOINT
_base_ = [
    "../_base_/models/otseg.py",
    "../_base_/datasets/context_480.py",
    "../_base_/schedules/no_training.py",
    "../_base_/default_runtime.py",
]

model = dict(
    split=dict(classes="context"),
    backbone=dict(visual_prompts=dict(num_tokens=100)),
    decode_head=dict(seen_bias=0.0),
    test_cfg=dict(crop_size=(480, 480), stride=(80, 80)),
)

train_dataloader = None
