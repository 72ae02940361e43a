# ZegCLIP: one prompt per class, the mean of OTSeg's six, and a decoder of plain attention.
_base_ = "./otseg.py"

model = dict(
    neck=dict(text=dict(average=True)),
    decode_head=dict(_delete_=True, type="ZegCLIPHead", dropout=0.0),
)
