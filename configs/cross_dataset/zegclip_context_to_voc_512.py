# A checkpoint of configs/zegclip/context_480.py tested on the 20 classes of Pascal VOC, without
# training: tools/test.py THIS_FILE CHECKPOINT
_base_ = "./context_to_voc_512.py"

model = dict(
    neck=dict(text=dict(templates=["a photo of a {}"], average=True)),
    decode_head=dict(_delete_=True, type="ZegCLIPHead", seen_bias=0.0),
)
