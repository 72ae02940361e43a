# A checkpoint of configs/zegclip/cocostuff_512.py tested on the 59 classes of Pascal Context,
# without training: tools/test.py THIS_FILE CHECKPOINT
_base_ = "./cocostuff_to_context_480.py"

model = dict(
    neck=dict(text=dict(templates="vild", average=True)),
    decode_head=dict(_delete_=True, type="ZegCLIPHead", seen_bias=0.0),
)
