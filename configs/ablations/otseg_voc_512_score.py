# OTSeg on Pascal VOC: the score map predicts alone.
_base_ = "../otseg/voc_512.py"

model = dict(
    decode_head=dict(predict_from="score"),
)
