# ZegCLIP over CLIP ViT-B/16: tower, visual prompts and loss of OTSeg, one text prompt per class
# (the mean of several sentences), and a decoder of plain multi-head attention.
_base_ = "./otseg.py"

model = dict(
    neck=dict(text=dict(templates="vild", average=True)),
    decode_head=dict(
        _delete_=True,
        type="ZegCLIPHead",
        loss_decode=dict(type="FocalDiceLoss"),
    ),
)
