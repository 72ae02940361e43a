# OTSeg on Pascal VOC: the decoder predicts alone (OTSeg instead of OTSeg+).
_base_ = "../otseg/voc_512.py"

model = dict(
    decode_head=dict(predict_from="decoder"),
)
