# A checkpoint of configs/zegclip/context_480.py tested on the 171 classes of COCO-Stuff 164k,
# without training: tools/test.py THIS_FILE CHECKPOINT
_base_ = "./context_to_cocostuff_512.py"

model = dict(
    neck=dict(text=dict(templates="vild", average=True)),
    decode_head=dict(_delete_=True, type="ZegCLIPHead", seen_bias=0.0),
)
