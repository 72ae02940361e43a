# A checkpoint of configs/otseg/context_480.py tested on the 20 classes of Pascal VOC, without
# training: tools/test.py THIS_FILE CHECKPOINT
_base_ = [
    "../_base_/models/otseg.py",
    "../_base_/datasets/voc_512.py",
    "../_base_/schedules/no_training.py",
    "../_base_/default_runtime.py",
]

model = dict(
    split=dict(classes="voc"),
    decode_head=dict(seen_bias=0.0),
)

train_dataloader = None
